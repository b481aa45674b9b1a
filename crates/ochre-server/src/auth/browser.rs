//! Pages of other sites must not use a server through the browser of somebody who can reach it.
//!
//! A browser says where a page is from (`Origin`, `Sec-Fetch-Site`); no other client does. Such requests pass if they
//! come from a page of this very server or of an origin that the configuration allows. And since any site can give its
//! own name this machine's address (DNS rebinding), without authentication the name in `Host` must be one that no site
//! can have.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, Method, StatusCode, Uri, header};

use crate::app::App;
use crate::error::ApiError;

/// Pages of this server that links of other sites may lead to.
const LINKED: [&str; 2] = ["/", "/docs"];

/// Fails for a request of a page that must not make it, or under a name that is not this server's.
pub(super) fn check(app: &App, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let server = &app.config().server;
    if app.auth().is_none() {
        let named = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("?"));
        // A request to a proxy names the host in its target too.
        for host in named.chain(uri.authority().map(axum::http::uri::Authority::as_str)) {
            if !is_own_name(host, &server.allowed_hosts) {
                let text = format!(
                    "requests under the name {host:?} are refused while nobody is asked who they are, since any site can give a name of its own this machine's address: use localhost or an address, name it in server.allowed_hosts, or set auth.enabled = true"
                );
                return Err(ApiError::new(StatusCode::FORBIDDEN, "AuthorizationError", text));
            }
        }
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (origin, site) = (text(header::ORIGIN), headers.get("sec-fetch-site"));
    let allowed = &server.cors_allow_origins;
    if allowed.iter().any(|own| own == "*" || Some(own.as_str()) == origin) {
        return Ok(());
    }
    let refused = |what: &str| {
        let text = format!("requests of pages {what} are refused; name the page's origin in server.cors_allow_origins");
        Err(ApiError::new(StatusCode::FORBIDDEN, "AuthorizationError", text))
    };
    let host = text(header::HOST).unwrap_or_default();
    if origin.is_some_and(|origin| origin.split_once("://").is_none_or(|(_, authority)| authority != host)) {
        return refused("of other origins");
    }
    if site.is_some_and(|site| site.as_bytes() == b"cross-site") {
        let is_link = method == Method::GET
            && LINKED.contains(&uri.path())
            && headers.get("sec-fetch-mode").is_some_and(|mode| mode.as_bytes() == b"navigate");
        if !is_link {
            return refused("of other sites");
        }
    }
    Ok(())
}

/// Whether no site can be reached under this name: an address, `localhost`, a name without a dot, or one that the
/// configuration names.
fn is_own_name(host: &str, allowed: &[String]) -> bool {
    let port = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = port.map_or(host, |(name, _)| name);
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    if let Some(inner) = inner {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let same = |own: &String| own.eq_ignore_ascii_case(name) || own.eq_ignore_ascii_case(host);
    is_plain || name.parse::<IpAddr>().is_ok() || allowed.iter().any(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_site_can_have_are_this_servers() {
        let allowed = ["db.example.com".to_owned(), "other.example:8443".to_owned()];
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]:8000",
            "[::1]",
            "10.1.2.3",
            "ochre",
            "ochre:8000",
            "db.example.com",
            "DB.example.com:9",
            "other.example:8443",
        ] {
            assert!(is_own_name(host, &allowed), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "other.example:1",
            "localhost.",
            "[evil.example]",
            "[::1",
            "",
            ":8000",
            "a b",
            "evil.example@localhost",
            "1.2.3",
        ] {
            assert!(!is_own_name(host, &allowed), "{host}");
        }
    }
}
