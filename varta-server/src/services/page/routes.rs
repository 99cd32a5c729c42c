//! What requests for the page are answered with.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ring::digest::{SHA256, digest};

use crate::services::page::assets::{ASSETS, Asset};

/// Bytes of a digest that make an entity tag.
const TAG_LEN: usize = 8;

/// The page and its files. A browser that has them already is told so.
pub(crate) fn routes() -> Router {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let tag = tag(asset.bytes);
        router.route(asset.path, get(move |headers: HeaderMap| async move { answer(asset, &tag, &headers) }))
    })
}

/// The entity tag of a file: another file has another one.
fn tag(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    let hex: String = digest.as_ref().iter().take(TAG_LEN).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

fn answer(asset: &'static Asset, tag: &str, headers: &HeaderMap) -> Response {
    let own = [(ETAG, HeaderValue::from_str(tag).unwrap_or(HeaderValue::from_static("\"\"")))];
    match is_known(headers, tag) {
        true => (StatusCode::NOT_MODIFIED, own).into_response(),
        false => (own, [(CONTENT_TYPE, asset.media_type)], Bytes::from_static(asset.bytes)).into_response(),
    }
}

/// Whether the client has the file with this tag. A proxy that compresses marks tags as weak.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| matches!(known.trim(), "*") || known.trim().trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(values: &[&'static str]) -> bool {
        let headers = values.iter().map(|value| (IF_NONE_MATCH, HeaderValue::from_static(value))).collect();
        is_known(&headers, "\"one\"")
    }

    #[test]
    fn a_file_is_sent_again_only_to_who_has_another_one() {
        for values in
            [&["\"one\""][..], &["W/\"one\""], &["\"two\", \"one\""], &["\"two\"", "\"one\""], &["*"]]
        {
            assert!(known(values), "{values:?}");
        }
        for values in [&[][..], &["\"two\""], &["one"], &["\"one\"x"]] {
            assert!(!known(values), "{values:?}");
        }
    }

    #[test]
    fn each_file_has_a_tag_of_its_own() {
        let tags: std::collections::BTreeSet<_> = ASSETS.iter().map(|asset| tag(asset.bytes)).collect();
        assert_eq!(tags.len(), ASSETS.len());
    }
}
