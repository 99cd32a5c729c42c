//! What a client asks for in its headers (RFC 9110, section 12): the format of the metrics, and whether they
//! are compressed.

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, AsHeaderName};

use crate::metrics::openmetrics;

/// The content type with its version, without which Prometheus 3 refuses the scrape.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Format {
    /// The text format of Prometheus.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Format::Text => TEXT_FORMAT,
            Format::OpenMetrics => openmetrics::CONTENT_TYPE,
        }
    }

    /// Type, subtype and version, as in a media range.
    const fn media_type(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Format::Text => ("text", "plain", "0.0.4"),
            Format::OpenMetrics => ("application", "openmetrics-text", "1.0.0"),
        }
    }

    /// The format that these headers ask for. It is the text format unless OpenMetrics is named, and preferred
    /// or equal; and where neither is accepted, because an answer that the client did not ask for tells it more
    /// than none.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let [text, openmetrics] =
            [Format::Text, Format::OpenMetrics].map(|format| format.preference(headers));
        let quality = |preference: Option<Preference>| preference.map_or(0, |preference| preference.quality);
        match openmetrics {
            Some(Preference { quality: wanted @ 1.., is_named: true, .. }) if wanted >= quality(text) => {
                Format::OpenMetrics
            }
            Some(_) | None => Format::Text,
        }
    }

    /// The most specific of the media ranges that this format is in; of equal ones that with the highest
    /// quality.
    fn preference(self, headers: &HeaderMap) -> Option<Preference> {
        let (kind, subtype, version) = self.media_type();
        let fits = |range: Element<'_>| {
            let (of_kind, of_subtype) = range.name.split_once('/')?;
            let is_named = of_subtype.eq_ignore_ascii_case(subtype) && of_kind.eq_ignore_ascii_case(kind);
            let is_group = of_subtype == "*" && (of_kind == "*" || of_kind.eq_ignore_ascii_case(kind));
            let of_version = range.parameter("version");
            let is_this = of_version.is_none_or(|of_version| of_version == version);
            let specificity = (is_named, of_kind != "*", of_version.is_some());
            let quality = range.quality()?;
            ((is_named || is_group) && is_this).then_some(Preference { specificity, quality, is_named })
        };
        elements(headers, ACCEPT).filter_map(fits).max_by_key(|fit| (fit.specificity, fit.quality))
    }
}

/// How much a client wants a format.
#[derive(Clone, Copy, Debug)]
struct Preference {
    /// Whether the range is this type, is one of its group, has its version.
    specificity: (bool, bool, bool),
    quality: u16,
    is_named: bool,
}

/// Whether these headers ask for gzip by its name, and do not prefer the plain text.
pub(super) fn wants_gzip(headers: &HeaderMap) -> bool {
    let quality = |names: &[&str]| {
        let is_it = |coding: &Element<'_>| names.iter().any(|name| coding.name.eq_ignore_ascii_case(name));
        elements(headers, ACCEPT_ENCODING).filter(is_it).filter_map(|coding| coding.quality()).max()
    };
    let plain = quality(&["identity"]).unwrap_or(0);
    quality(&["gzip", "x-gzip"]).is_some_and(|quality| quality > 0 && quality >= plain)
}

/// An element of a list: `name;parameter=value;q=0.5`.
#[derive(Clone, Copy)]
struct Element<'h> {
    name: &'h str,
    parameters: &'h str,
}

impl<'h> Element<'h> {
    /// The value of a parameter, without quotes.
    fn parameter(&self, wanted: &str) -> Option<&'h str> {
        self.parameters.split(';').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"'))
        })
    }

    /// The quality in thousandths; `None` when it is not one.
    fn quality(&self) -> Option<u16> {
        let Some(quality) = self.parameter("q") else { return Some(1000) };
        let (whole, fraction) = quality.split_once('.').unwrap_or((quality, ""));
        if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let thousandths: u16 = format!("{fraction:0<3}").parse().ok()?;
        match whole {
            "0" => Some(thousandths),
            "1" if thousandths == 0 => Some(1000),
            _ => None,
        }
    }
}

/// The elements of all headers with this name. A value that is not ASCII has none.
fn elements(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = Element<'_>> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|element| {
        let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
        Element { name: name.trim(), parameters }
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn openmetrics_is_for_who_names_it_and_does_not_prefer_another_format() {
        const PROMETHEUS_2: &str = "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for wanted in [
            PROMETHEUS_2,
            PROMETHEUS_3,
            "application/openmetrics-text",
            "APPLICATION/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=0.5",
            "application/openmetrics-text, text/plain",
            "text/plain;q=0.4, application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0.001, text/plain;q=0",
            "application/openmetrics-text;q=0.2, */*;q=0.1",
            "application/openmetrics-text;version=0.0.1, application/openmetrics-text;version=1.0.0;q=0.9",
        ] {
            assert_eq!(Format::wanted(&headers(&ACCEPT, &[wanted])), Format::OpenMetrics, "{wanted}");
        }
        for wanted in [
            "",
            "*/*",
            "application/*",
            "text/plain",
            "text/html, application/xhtml+xml, */*;q=0.8",
            "application/json",
            "text/plain;version=0.0.4;q=0.6, application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0, */*",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.5, */*;q=0.6",
            // Not qualities.
            "application/openmetrics-text;q=2",
            "application/openmetrics-text;q=1.001",
            "application/openmetrics-text;q=-1",
            "application/openmetrics-text;q=0.0001",
            "application/openmetrics-text;q=high",
            "application/openmetrics-text;q=",
            "openmetrics-text",
            ",;=,\"/\";/",
        ] {
            assert_eq!(Format::wanted(&headers(&ACCEPT, &[wanted])), Format::Text, "{wanted}");
        }
        assert_eq!(Format::wanted(&HeaderMap::new()), Format::Text);
        let two = headers(&ACCEPT, &["text/plain;q=0.5", "application/openmetrics-text"]);
        assert_eq!(Format::wanted(&two), Format::OpenMetrics);
    }

    #[test]
    fn gzip_is_for_who_names_it_and_does_not_prefer_plain_text() {
        for wanted in
            ["gzip", "GZip", "x-gzip", "deflate, gzip;q=0.5", "gzip, identity", "*;q=0, gzip;q=0.001"]
        {
            assert!(wants_gzip(&headers(&ACCEPT_ENCODING, &[wanted])), "{wanted}");
        }
        for other in [
            "",
            "*",
            "identity",
            "deflate, br",
            "gzip;q=0",
            "gzip; q=0.000",
            "gzip;q=0.5, identity",
            "gzipped",
        ] {
            assert!(!wants_gzip(&headers(&ACCEPT_ENCODING, &[other])), "{other}");
        }
        assert!(!wants_gzip(&HeaderMap::new()));
    }
}
