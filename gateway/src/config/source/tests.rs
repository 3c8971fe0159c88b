use super::*;

fn environment(pairs: &[(&str, &str)]) -> Inputs {
    Inputs {
        default_file: "/nonexistent/ringway.toml".into(),
        environment: pairs
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        ..Inputs::default()
    }
}

fn refused(pairs: &[(&str, &str)]) -> String {
    read(&environment(pairs)).unwrap_err().to_string()
}

fn refused_text(text: &str) -> String {
    let origin = |line| Origin::File {
        path: "r.toml".into(),
        line,
    };
    parse(text, &origin).err().unwrap().to_string()
}

#[test]
fn nothing_given_is_all_defaults() {
    assert_eq!(
        read(&environment(&[("PATH", "/bin")])).unwrap().raw,
        Raw::default()
    );
}

#[test]
fn variables_are_strings_numbers_lists_and_tables() {
    let merged = read(&environment(&[
        ("RINGWAY_CLIENT__TOKEN__HMAC_SECRET_KEY", "12345"),
        (
            "RINGWAY_CLIENT__TOKEN",
            r#"{"audience": "a", "hmac_secret_key": "other"}"#,
        ),
        ("RINGWAY_CLIENT__CHANNEL_LIMIT", "7"),
        ("RINGWAY_CLIENT__INSECURE", "true"),
        (
            "RINGWAY_CLIENT__ALLOWED_ORIGINS",
            r#"["https://a.example"]"#,
        ),
        ("RINGWAY_CLIENT__PING_INTERVAL", "0"),
        ("RINGWAY_LIMITS__LOG_BYTES", "65536"),
        ("RINGWAY_LIMITS__DRY_RUN", r#"["*"]"#),
        ("RINGWAY_SHARDS", "3"),
        ("RINGWAY_CORES", "0-1"),
        (
            "RINGWAY_CHANNEL__NAMESPACES",
            r#"[{"name": "chat", "slow": {"policy": "skip"}}]"#,
        ),
    ]))
    .unwrap();
    let raw = merged.raw;
    assert_eq!(raw.client.token.hmac_secret_key.0, "12345");
    assert_eq!(raw.client.token.audience, "a");
    assert_eq!(raw.limits.dry_run, ["*"]);
    assert_eq!(raw.client.channel_limit, 7);
    assert!(raw.client.insecure);
    assert_eq!(raw.client.allowed_origins, ["https://a.example"]);
    assert_eq!(raw.limits.log_bytes.0, 65_536);
    assert_eq!(raw.shards, super::super::raw::Shards::Number(3));
    assert_eq!(raw.cores, [0, 1]);
    assert_eq!(raw.channel.namespaces[0].slow.policy, "skip");
    assert_eq!(
        merged.origins.of("channel.namespaces[0].slow.policy"),
        Origin::Environment("RINGWAY_CHANNEL__NAMESPACES".into())
    );
}

#[test]
fn unknown_variables_are_named() {
    assert_eq!(
        refused(&[("RINGWAY_CLIENT__CHANEL_LIMIT", "7")]),
        "environment variable RINGWAY_CLIENT__CHANEL_LIMIT: client.chanel_limit: unknown key, did you mean channel_limit?"
    );
    assert!(refused(&[("RINGWAY_PORT", "tcp://10.0.0.1")]).contains("enableServiceLinks"));
    assert!(refused(&[("RINGWAY_", "x")]).contains("unknown key"));
    assert!(refused(&[("RINGWAY_A.B", "x")]).contains("unknown key"));
    assert!(refused(&[("RINGWAY_NATS__REGION", "eu")]).contains("does not have it yet"));
}

#[test]
fn errors_in_variables_say_what_was_got_and_wanted() {
    assert_eq!(
        refused(&[("RINGWAY_SHUTDOWN__DELAY", "5")]),
        "environment variable RINGWAY_SHUTDOWN__DELAY: shutdown.delay: got integer `5`, want a duration such as \
         \"500ms\", \"25s\", \"10m\", \"1h\" or \"0\""
    );
    assert!(
        refused(&[("RINGWAY_CLIENT__INSECURE", "yes")])
            .ends_with("got \"yes\", want true or false")
    );
    assert!(
        refused(&[("RINGWAY_CLIENT__CHANNEL_LIMIT", "-1")])
            .contains("got integer `-1`, want a whole number")
    );
    assert!(refused(&[("RINGWAY_CLIENT__ALLOWED_ORIGINS", "https://a")]).contains("want a list"));
    assert!(refused(&[("RINGWAY_CHANNEL__NAMESPACES", "[{")]).contains("written as JSON"));
}

#[test]
fn no_error_shows_a_secret() {
    for (name, value) in [
        ("RINGWAY_CLIENT__TOKEN", "hunter2"),
        (
            "RINGWAY_CLIENT__TOKEN",
            r#"{"hmac_secret_key": ["hunter2"]}"#,
        ),
        ("RINGWAY_CLIENT__TOKEN", r#"{"hmac_secret_key": "hunter2""#),
        ("RINGWAY_HTTP_API", "hunter2"),
        (
            "RINGWAY_CLIENT__TOKEN",
            r#"{"hmac_secret_key": {"hunter2": 1}}"#,
        ),
    ] {
        let message = refused(&[(name, value)]);
        assert!(!message.contains("hunter2"), "{message}");
    }
    for text in [
        "http_api = 'hunter2'",
        "http_api.key = ['hunter2']",
        "http_api.key = 'hunter2",
        "client.token = ['hunter2']",
        "[http_api]\nkey = hunter2",
    ] {
        let message = refused_text(text);
        assert!(
            !message.contains("hunter2") && !message.contains('\n'),
            "{message}"
        );
    }
    for number in ["42424242", "4242.4242", "2042-04-24"] {
        let message = refused_text(&format!("http_api.key = {number}"));
        assert!(!message.contains("42"), "{message}");
    }
}

#[test]
fn errors_in_files_name_line_and_key() {
    assert_eq!(
        refused_text("[client]\n\nping_intervall = '25s'\n"),
        "r.toml:3: client.ping_intervall: unknown key, did you mean ping_interval?"
    );
    assert_eq!(
        refused_text("[client]\nping_interval = '25x'\n"),
        "r.toml:2: client.ping_interval: got \"25x\", want a duration such as \"500ms\", \"25s\", \"10m\", \"1h\" or \"0\""
    );
    assert!(
        refused_text("[[channel.namespaces]]\nname='a'\n[[channel.namespaces]]\nlag.bytes='1MB'\n")
            .starts_with(
                "r.toml:4: channel.namespaces[1].lag.bytes: got \"1MB\", want a number of bytes"
            )
    );
    assert!(refused_text("a = 1\n= 2").starts_with("r.toml:2: not TOML: "));
    assert!(refused_text("nonsense = 1").ends_with("nonsense: unknown key"));
    assert!(
        refused_text("[[channel.namespaces]]\nhistory_class = 'x'")
            .contains("does not have it yet")
    );
    assert_eq!(
        refused_text("log = ['debug']"),
        "r.toml:1: log: got a list, want a table"
    );
    assert!(
        refused_text("channel.namespaces = [['chat']]")
            .contains("channel.namespaces[0]: got a list, want a table")
    );
    assert!(refused_text("client.admin = 1").contains("client.admin: unknown key"));
}

#[test]
fn flags_beat_variables_beat_the_file() {
    let directory = std::env::temp_dir().join(format!("ringway-source-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("r.toml");
    std::fs::write(&file, "shards = 1\nreactor = 'epoll'\nlog.level = 'warn'\n").unwrap();
    let mut inputs = environment(&[
        (FILE_VARIABLE, file.to_str().unwrap()),
        ("RINGWAY_SHARDS", "2"),
        ("RINGWAY_REACTOR", "uring"),
    ]);
    inputs.flags.push(Flag {
        name: "--shards",
        key: "shards",
        value: Value::Integer(3),
    });
    let merged = read(&inputs).unwrap();
    assert_eq!(merged.raw.shards, super::super::raw::Shards::Number(3));
    assert_eq!(merged.raw.reactor, "uring");
    assert_eq!(merged.raw.log.level, "warn");
    assert_eq!(merged.origins.of("shards"), Origin::Flag("--shards"));
    assert_eq!(
        merged.origins.of("log.level"),
        Origin::File {
            path: file.clone(),
            line: 3
        }
    );
    assert_eq!(merged.origins.of("log.format"), Origin::Default);
    assert_eq!(merged.origins.of("client.insecure"), Origin::Default);
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(
        read(&inputs)
            .unwrap_err()
            .to_string()
            .starts_with("cannot read the configuration file ")
    );
}
