//! Who may use the API: whoever has one of the configured keys.

use super::super::Control;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

/// Lets a request with a valid key through, and only as many at a time as memory is planned for.
pub(super) async fn check(
    State(control): State<Control>,
    request: Request,
    next: Next,
) -> Response {
    let allowed = offered(request.headers(), request.uri())
        .is_some_and(|key| is_known(key.as_bytes(), &control.config().api_keys));
    if !allowed {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Ok(_admitted) = control.0.admission.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    next.run(request).await
}

#[derive(Deserialize)]
struct KeyQuery {
    api_key: String,
}

/// The key of `X-API-Key`, `Authorization: apikey …` or `?api_key=`, the first that is there.
fn offered(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    if let Some(key) = headers.get("x-api-key") {
        return Some(key.to_str().ok()?.to_owned());
    }
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = authorization.to_str().ok()?.split_once(' ')?;
        return scheme
            .eq_ignore_ascii_case("apikey")
            .then(|| key.trim().to_owned());
    }
    Query::<KeyQuery>::try_from_uri(uri)
        .ok()
        .map(|Query(query)| query.api_key)
}

/// Compares with every key, each to its end, so that the time taken tells at most the lengths.
fn is_known(offered: &[u8], keys: &[String]) -> bool {
    let mut known = false;
    for key in keys.iter().filter(|key| !key.is_empty()) {
        known |= equal_in_constant_time(offered, key.as_bytes());
    }
    known
}

fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // The hint keeps the optimiser from leaving the loop at the first difference.
    a.iter().zip(b).fold(0u8, |difference, (a, b)| {
        std::hint::black_box(difference | (a ^ b))
    }) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_any_of_the_keys_and_no_empty_one() {
        let keys = ["secret".to_owned(), String::new(), "other".to_owned()];
        assert!(is_known(b"secret", &keys));
        assert!(is_known(b"other", &keys));
        for wrong in [&b"secreT"[..], b"secre", b"secret ", b"", b"othe"] {
            assert!(!is_known(wrong, &keys), "{wrong:?}");
        }
        assert!(!is_known(b"", &[]));
    }

    #[test]
    fn takes_the_key_from_three_places() {
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(offered(&headers, &uri("/api/info")), None);
        assert_eq!(
            offered(&headers, &uri("/api/info?api_key=a%20b&x=1")).as_deref(),
            Some("a b")
        );
        headers.insert(header::AUTHORIZATION, "apikey fromauth".parse().unwrap());
        assert_eq!(
            offered(&headers, &uri("/api/info")).as_deref(),
            Some("fromauth")
        );
        headers.insert("X-API-Key", "direct".parse().unwrap());
        assert_eq!(
            offered(&headers, &uri("/api/info?api_key=q")).as_deref(),
            Some("direct")
        );
    }

    #[test]
    fn another_authorization_scheme_is_no_key() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer dev".parse().unwrap());
        assert_eq!(offered(&headers, &"/api/info".parse().unwrap()), None);
    }
}
