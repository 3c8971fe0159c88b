//! Which web pages may ask the internal port: none but its own.
//!
//! A browser on this machine, or in this network, would carry a stranger's page to a port that is closed to strangers:
//! by a form whose answer the page does not need to see, or as its own host, once its name is made to resolve to this
//! address (DNS rebinding).

use super::Control;
use crate::config::Origins;
use crate::protocol::http::origin_allowed;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::{IpAddr, Ipv6Addr};

/// Refuses with 403 what a page of elsewhere asks: its `Origin` is another host than the one asked, or, where the port is
/// on a loopback address, the host asked is a name that somebody may have made resolve to it.
pub(super) async fn check(
    State(control): State<Control>,
    request: Request,
    next: Next,
) -> Response {
    let local = control.config().internal_address.ip().is_loopback();
    let refusal = match host(&request) {
        Some(host) if local && !is_local(host) => {
            "ask this port by its address or as localhost: Host names another\n"
        }
        host if !may_ask(request.headers(), host) => {
            "pages of another origin may not ask this port\n"
        }
        _ => return next.run(request).await,
    };
    tracing::debug!(refusal, "internal port");
    (StatusCode::FORBIDDEN, refusal).into_response()
}

/// The host asked: of the target when that is a whole address, else `Host`. HTTP/1.0 knows none, but browsers do not speak it.
fn host(request: &Request) -> Option<&str> {
    let target = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    target.or_else(|| text(request.headers(), header::HOST))
}

/// A header's value; one that is no text is as good as an empty one, which allows nothing.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers
        .get(name)
        .map(|value| value.to_str().unwrap_or_default())
}

/// Whether a host, with or without a port, is an address or a name that browsers never look up (RFC 6761 section 6.3).
fn is_local(host: &str) -> bool {
    if let Some(bracketed) = host.strip_prefix('[') {
        return bracketed
            .split_once(']')
            .is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    name.parse::<IpAddr>().is_ok() || is("localhost") || is("localhost.")
}

fn may_ask(headers: &HeaderMap, host: Option<&str>) -> bool {
    let own = Origins::List(Vec::new());
    text(headers, header::ORIGIN).is_none_or(|origin| origin_allowed(origin, host, &own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_nobody_can_rebind() {
        for local in [
            "127.0.0.1",
            "127.0.0.1:9000",
            "10.0.0.7:9000",
            "[::1]",
            "[::1]:9000",
            "localhost",
            "LocalHost:9000",
            "localhost.",
        ] {
            assert!(is_local(local), "{local}");
        }
        for named in [
            "",
            ":9000",
            "evil.example",
            "evil.example:9000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "127.1",
            "[evil.example]",
            "[::1",
            "2130706433",
        ] {
            assert!(!is_local(named), "{named}");
        }
    }
}
