//! The v1 API, which Chroma retired: 410, as its own server answers.

use axum::http::StatusCode;
use ochre_extension::{Access, Description, Method};

use super::served::Served;
use crate::error::ApiError;

const PATH: &str = "/api/v1/{*rest}";
const ABOUT: &str = "What Chroma retired";

pub(super) fn operations() -> Vec<Served> {
    vec![
        Served::new(Description::get(PATH, ABOUT, Access::Public).unlisted(), gone),
        Served::new(Description::put(PATH, ABOUT, Access::Public).unlisted(), gone),
        Served::new(Description::patch(PATH, ABOUT, Access::Public).unlisted(), gone),
        Served::new(Description::delete(PATH, ABOUT, Access::Public).unlisted(), gone),
        Served::new(Description::new(Method::Options, PATH, ABOUT, Access::Public).unlisted(), gone),
    ]
}

async fn gone() -> ApiError {
    ApiError::new(StatusCode::GONE, "Unimplemented", "The v1 API is deprecated. Please use /v2 apis")
}
