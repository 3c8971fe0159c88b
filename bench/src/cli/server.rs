//! The server under test, on the command line.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::Failure;
use crate::client::centrifuge::Encoding;
use crate::client::credentials::{Credentials, Signer};
use crate::client::fleet::Manners;
use crate::client::frames::Opcode;
use crate::client::handshake::{SocketLimits, Target};
use crate::client::protocol::Protocol;
use crate::client::raw::{Match, Raw, Template};
use crate::client::tls;
use crate::scenario::Server;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Spoken {
    /// The Centrifuge protocol as JSON.
    Json,
    /// The Centrifuge protocol as Protobuf.
    Protobuf,
    /// Anything else, by --hello, --publish and --match.
    Raw,
}

/// Where the server is.
#[derive(Args)]
pub struct PlaceArgs {
    /// Where the server listens, ws://host:port/path or wss://; {channel} in the path is the connection's.
    #[arg(long, value_name = "URL")]
    pub target: String,
    /// The server's processes, to tell its CPU and memory.
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// A header of the upgrade; may be repeated.
    #[arg(long, value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// A parameter of the upgrade's query; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub query: Vec<String>,
    #[command(flatten)]
    tls: tls::Wish,
    /// Offer permessage-deflate without context takeover; a server that declines it fails the run. Nothing is compressed that
    /// is sent.
    #[arg(long)]
    pub deflate: bool,
}

impl PlaceArgs {
    /// The target of `url` with the headers and the query.
    pub fn target(&self, url: &str) -> Result<Target, Failure> {
        let mut target = Target::parse(url, &self.tls).map_err(Failure::Usage)?;
        target.deflate = self.deflate;
        self.query.iter().for_each(|pair| target.add_query(pair));
        for line in &self.header {
            target.add_header(line).map_err(Failure::Usage)?;
        }
        Ok(target)
    }

    /// An echo server: each connection is alone in a channel of its own.
    pub fn echo(
        &self,
        connections: usize,
        subprotocol: Option<String>,
        binary: bool,
        ramp: Option<f64>,
    ) -> Result<Server, Failure> {
        let raw = Raw {
            subprotocol,
            ..Raw::echo(opcode(binary))
        };
        Ok(Server {
            manners: Manners {
                target: self.target(&self.target)?,
                publish_target: None,
                protocol: Protocol::Raw(Box::new(raw)),
                credentials: Credentials::None,
                recoverable: false,
                limits: SocketLimits::default(),
                ramp,
            },
            pids: self.pid.clone(),
            channels: connections,
            channel_prefix: String::new(),
        })
    }
}

fn opcode(binary: bool) -> Opcode {
    match binary {
        true => Opcode::Binary,
        false => Opcode::Text,
    }
}

#[derive(Args)]
pub struct ServerArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// What the server speaks.
    #[arg(long, alias = "encoding", value_enum, default_value = "json")]
    protocol: Spoken,
    #[command(flatten)]
    credentials: CredentialsArgs,
    /// Channels; members are spread evenly.
    #[arg(long, default_value_t = 1)]
    channels: usize,
    /// A channel's name is this and its number.
    #[arg(long, value_name = "TEXT", default_value = "bench-")]
    channel_prefix: String,
    /// Connections opened a second while the run ramps up; as fast as the server answers without.
    #[arg(long, value_name = "R")]
    ramp: Option<f64>,
    #[command(flatten, next_help_heading = "Raw protocol")]
    raw: RawArgs,
}

// Who connections say they are; anonymous without any of these.
#[derive(Args)]
struct CredentialsArgs {
    /// A connection token for all.
    #[arg(long, group = "credentials")]
    token: Option<String>,
    /// Signs a token for each connection with HS256.
    #[arg(long, group = "credentials", value_name = "SECRET")]
    token_secret: Option<String>,
    /// Signs a token for each connection with ES256, by this private key in PEM (PKCS #8).
    #[arg(long, group = "credentials", value_name = "FILE")]
    token_key: Option<PathBuf>,
}

impl CredentialsArgs {
    fn read(&self) -> Result<Credentials, Failure> {
        let Self {
            token,
            token_secret,
            token_key,
        } = self;
        if let Some(file) = token_key {
            let wrong = |words: String| Failure::Usage(format!("{}: {words}", file.display()));
            let pem = fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
            return Ok(Credentials::Signed(Arc::new(
                Signer::by_pem(&pem).map_err(wrong)?,
            )));
        }
        Ok(match (token_secret, token) {
            (Some(secret), _) => {
                Credentials::Signed(Arc::new(Signer::by_secret(secret.as_bytes())))
            }
            (None, Some(token)) => Credentials::Same(token.clone()),
            (None, None) => Credentials::None,
        })
    }
}

#[derive(Args)]
struct RawArgs {
    /// What a member says first; may be repeated, a message each.
    #[arg(long, value_name = "TEMPLATE")]
    hello: Vec<String>,
    /// Messages a member awaits until it has joined.
    #[arg(long, value_name = "N", default_value_t = 0)]
    replies: u8,
    /// The same for the connections that publish.
    #[arg(long, value_name = "TEMPLATE")]
    publisher_hello: Vec<String>,
    #[arg(long, value_name = "N", default_value_t = 0)]
    publisher_replies: u8,
    /// Where publishers connect to, if elsewhere.
    #[arg(long, value_name = "URL")]
    publish_target: Option<String>,
    /// What publishes: {channel} {data} {size} {id} {token}.
    #[arg(long, value_name = "TEMPLATE", default_value = "{data}")]
    publish: String,
    /// How a payload stands in what arrives: PREFIX{data}SUFFIX; other messages are counted and passed over.
    #[arg(long = "match", value_name = "TEMPLATE", default_value = "{data}")]
    matches: String,
    /// Messages that want an answer, a heartbeat say; may be repeated.
    #[arg(long, value_name = "RECEIVED=SENT")]
    answer: Vec<String>,
    /// The subprotocol to ask for.
    #[arg(long, value_name = "NAME")]
    subprotocol: Option<String>,
    /// Send binary messages.
    #[arg(long)]
    binary: bool,
}

impl ServerArgs {
    /// The server, checked.
    pub fn server(&self) -> Result<Server, Failure> {
        super::demand(self.channels > 0, "there must be a channel")?;
        let protocol = match self.protocol {
            Spoken::Json => Protocol::Centrifuge(Encoding::Json),
            Spoken::Protobuf => Protocol::Centrifuge(Encoding::Protobuf),
            Spoken::Raw => Protocol::Raw(Box::new(self.raw.read().map_err(Failure::Usage)?)),
        };
        let publish_target = self.raw.publish_target.as_deref();
        Ok(Server {
            manners: Manners {
                target: self.place.target(&self.place.target)?,
                publish_target: publish_target
                    .map(|url| self.place.target(url))
                    .transpose()?,
                protocol,
                credentials: self.credentials.read()?,
                recoverable: false,
                limits: SocketLimits::default(),
                ramp: self.ramp,
            },
            pids: self.place.pid.clone(),
            channels: self.channels,
            channel_prefix: self.channel_prefix.clone(),
        })
    }
}

impl RawArgs {
    fn read(&self) -> Result<Raw, String> {
        let templates = |texts: &[String]| -> Result<Vec<Template>, String> {
            texts.iter().map(|text| Template::parse(text)).collect()
        };
        let literal = |text: &str| Ok::<_, String>(Template::parse(text)?.fill(Default::default()));
        let answers = self.answer.iter().map(|pair| {
            let (asked, answer) = pair
                .split_once('=')
                .ok_or_else(|| format!("{pair}: an answer is RECEIVED=SENT"))?;
            Ok((literal(asked)?, literal(answer)?))
        });
        Ok(Raw {
            opcode: opcode(self.binary),
            subprotocol: self.subprotocol.clone(),
            hello: templates(&self.hello)?,
            replies: self.replies,
            publisher_hello: templates(&self.publisher_hello)?,
            publisher_replies: self.publisher_replies,
            publish: Template::parse(&self.publish)?,
            matches: Match::parse(&self.matches)?,
            answers: answers.collect::<Result<_, String>>()?,
        })
    }
}
