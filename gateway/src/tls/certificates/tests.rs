use super::*;
use crate::testing::tls::{Identity, Scratch, TlsClient};
use crate::tls::{Progress, Server};

/// The name that the certificate shown to a client bears, or why there is none.
fn shown(server: &Server, identity: &Identity, name: &str) -> Result<(), rustls::Error> {
    let acceptor = server.acceptor();
    let config = identity.trusted(&[&rustls::version::TLS13]);
    let mut client = TlsClient::of_name(config, name);
    let (mut hello, mut answer) = (Vec::new(), Vec::new());
    client.take(&mut hello);
    let mut handshake = acceptor.begin().unwrap();
    assert!(handshake.add(&hello));
    let progress = handshake.advance(&acceptor, &mut answer);
    assert!(matches!(progress, Progress::Waits(_)), "{progress:?}");
    client.read(&answer, &mut Vec::new())
}

#[test]
fn a_client_gets_the_certificate_that_bears_the_name_it_asks_for() {
    let scratch = Scratch::new();
    let identities = [
        Identity::new(&["first.example"]),
        Identity::new(&["a.example", "Other.Example"]),
        Identity::new(&["*.wild.example"]),
    ];
    let files = identities.iter().zip(["0", "1", "2"]);
    let files = files.map(|(identity, name)| identity.write(scratch.path(), name));
    let certificates = Certificates::load(files.collect()).unwrap();
    let server = Server::new(Arc::new(certificates)).unwrap();
    for (name, which) in [
        ("first.example", 0),
        ("a.example", 1),
        ("OTHER.example", 1),
        ("x.wild.example", 2),
    ] {
        assert_eq!(shown(&server, &identities[which], name), Ok(()), "{name}");
    }
    // Those that nobody bears get the first; the client is not content.
    for name in ["x.y.wild.example", "wild.example", "unknown"] {
        assert!(shown(&server, &identities[0], name).is_err(), "{name}");
    }
}

#[test]
fn a_reload_changes_what_new_clients_see_and_a_bad_one_changes_nothing() {
    let scratch = Scratch::new();
    let (old, new) = (Identity::new(&["localhost"]), Identity::new(&["localhost"]));
    let files = old.write(scratch.path(), "x");
    let certificates = Arc::new(Certificates::load(vec![files.clone()]).unwrap());
    let server = Server::new(certificates.clone()).unwrap();
    assert_eq!(shown(&server, &old, "localhost"), Ok(()));
    std::fs::write(&files.key, "nonsense").unwrap();
    assert!(certificates.reload().unwrap_err().is_key);
    assert_eq!(shown(&server, &old, "localhost"), Ok(()));
    new.write(scratch.path(), "x");
    assert_eq!(certificates.reload(), Ok(1));
    assert_eq!(shown(&server, &new, "localhost"), Ok(()));
    assert!(shown(&server, &old, "localhost").is_err());
}

#[test]
fn files_that_cannot_be_used_are_named_with_what_is_wrong() {
    let scratch = Scratch::new();
    let good = Identity::new(&["localhost"]).write(scratch.path(), "good");
    let other = Identity::new(&["localhost"]).write(scratch.path(), "other");
    let file = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let certificate = |certificates| PemPair {
        certificates,
        key: good.key.clone(),
    };
    let key = |key| PemPair {
        certificates: good.certificates.clone(),
        key,
    };
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (files, is_key, problem) in [
        (
            certificate(scratch.path().join("none")),
            false,
            "cannot be read",
        ),
        (
            certificate(file("a", "")),
            false,
            "no certificate in PEM form",
        ),
        (
            certificate(good.key.clone()),
            false,
            "no certificate in PEM form",
        ),
        (certificate(file("b", cut)), false, "not well-formed PEM"),
        (
            certificate(file("c", odd)),
            false,
            "not a usable certificate",
        ),
        (key(scratch.path().join("none")), true, "cannot be read"),
        (
            key(good.certificates.clone()),
            true,
            "no unencrypted private key in PEM form",
        ),
        (key(file("d", encrypted)), true, "encrypted"),
        (
            key(other.key.clone()),
            true,
            "not the key of the certificate in",
        ),
    ] {
        let error = Certificates::load(vec![good.clone(), files]).unwrap_err();
        assert_eq!((error.pair, error.is_key), (1, is_key), "{error}");
        assert!(
            error.to_string().contains(problem),
            "{error} lacks {problem}"
        );
    }
}
