//! Which pages may connect.

use crate::config::Origins;

/// Whether a page from `origin` may connect; call it only for requests that have an `Origin`.
///
/// With a list: one of its entries equals the origin, letter case apart, where a `*` stands for any run of letters,
/// digits, `-`, `_` and `.`, so never for anything across a scheme or a port. With an **empty** list: pages from the host
/// that was asked, `host` being the request's `Host`.
pub fn origin_allowed(origin: &str, host: Option<&str>, allowed: &Origins) -> bool {
    match allowed {
        Origins::Any => true,
        Origins::List(list) if list.is_empty() => {
            host.is_some_and(|host| is_same_host(origin, host))
        }
        Origins::List(list) => list.iter().any(|pattern| {
            pattern == "*" || matches_pattern(pattern.as_bytes(), origin.as_bytes())
        }),
    }
}

/// Whether an origin is at a host, with or without the port its scheme implies.
fn is_same_host(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let port = if scheme.eq_ignore_ascii_case("https") {
        ":443"
    } else {
        ":80"
    };
    let authority = authority.strip_suffix(port).unwrap_or(authority);
    let host = host.strip_suffix(port).unwrap_or(host);
    !authority.is_empty() && authority.eq_ignore_ascii_case(host)
}

/// Matches an origin against an exact entry or one with `*`. On a mismatch the latest star takes one byte more; earlier
/// stars never have to.
fn matches_pattern(pattern: &[u8], origin: &[u8]) -> bool {
    let (mut p, mut o) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while o < origin.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, o));
            p += 1;
        } else if pattern
            .get(p)
            .is_some_and(|byte| byte.eq_ignore_ascii_case(&origin[o]))
        {
            p += 1;
            o += 1;
        } else if let Some((after, taken)) = star
            && (origin[taken].is_ascii_alphanumeric()
                || matches!(origin[taken], b'-' | b'_' | b'.'))
        {
            star = Some((after, taken + 1));
            (p, o) = (after, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_exactly_or_by_pattern() {
        let list =
            |patterns: &[&str]| Origins::List(patterns.iter().map(|&it| it.to_owned()).collect());
        let table: [(&str, &str, bool); 18] = [
            ("https://example.com", "https://example.com", true),
            ("https://example.com", "HTTPS://Example.COM", true),
            ("https://example.com", "http://example.com", false),
            ("https://example.com", "https://example.com:8443", false),
            ("https://example.com", "https://example.com.evil.org", false),
            ("https://example.com", "https://evil-example.com", false),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            (
                "https://*.example.com",
                "https://evil.org:80.example.com",
                false,
            ),
            (
                "https://*.example.com",
                "https://a.example.com.evil.org",
                false,
            ),
            (
                "https://*.example.com",
                "https://evil.org/.example.com",
                false,
            ),
            (
                "https://app-*.*.example.com",
                "https://app-1.eu.example.com",
                true,
            ),
            (
                "https://app-*.*.example.com",
                "https://app-1.example.com",
                false,
            ),
            ("http://localhost:*", "http://localhost:3000", true),
            ("http://localhost:*", "http://localhost", false),
            ("null", "null", true),
            ("*", "null", true),
        ];
        for (pattern, origin, expected) in table {
            assert_eq!(
                origin_allowed(origin, None, &list(&[pattern])),
                expected,
                "{origin} against {pattern}"
            );
        }
        assert!(origin_allowed(
            "https://b",
            None,
            &list(&["https://a", "https://b"])
        ));
        assert!(origin_allowed("anything", None, &Origins::Any));
    }

    #[test]
    fn without_a_list_only_the_own_host_may_connect() {
        let none = Origins::List(Vec::new());
        for (origin, host, expected) in [
            ("https://example.com", Some("example.com"), true),
            ("https://example.com", Some("Example.com:443"), true),
            ("http://example.com:8000", Some("example.com:8000"), true),
            ("http://example.com", Some("example.com:8000"), false),
            ("https://example.com", Some("example.com:80"), false),
            ("https://evil.org", Some("example.com"), false),
            ("null", Some("null"), false),
            ("https://", Some(""), false),
            ("https://example.com", None, false),
        ] {
            assert_eq!(
                origin_allowed(origin, host, &none),
                expected,
                "{origin} at {host:?}"
            );
        }
    }
}
