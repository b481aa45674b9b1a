//! Pages of other sites must not use a server through the browser of somebody who can reach it.
//!
//! A browser says where a page is from (`Origin`, `Sec-Fetch-Site`); no other client does. Such requests pass if they come from a
//! page of this very server or of an origin that the configuration allows; without authentication only under a name of
//! this machine, since any site can give its own name this machine's address.

use axum::http::{HeaderMap, StatusCode, header};

use crate::app::App;
use crate::error::ApiError;

/// Names of this machine.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Fails for a request of a page that must not make it.
pub(super) fn check(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (origin, site) = (text(header::ORIGIN), headers.contains_key("sec-fetch-site"));
    if origin.is_none() && !site {
        return Ok(());
    }
    let allowed = &app.config().server.cors_allow_origins;
    if allowed.iter().any(|own| own == "*" || Some(own.as_str()) == origin) {
        return Ok(());
    }
    let host = text(header::HOST).unwrap_or_default();
    let refused = |what: &str| {
        let text = format!("requests of pages {what} are refused; name the page's origin in server.cors_allow_origins");
        Err(ApiError::new(StatusCode::FORBIDDEN, "AuthorizationError", text))
    };
    if origin.is_some_and(|origin| origin.split_once("://").is_none_or(|(_, authority)| authority != host)) {
        return refused("of other origins");
    }
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name);
    if app.auth().is_none() && !LOCAL.contains(&name) && !allowed.iter().any(|own| own.ends_with(&format!("://{host}")))
    {
        return refused("under other names than this machine's, while nobody is asked who they are,");
    }
    Ok(())
}
