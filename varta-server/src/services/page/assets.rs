//! The files of the page.

/// A file as browsers load it.
#[derive(Debug)]
pub(super) struct Asset {
    /// The path of its request.
    pub(super) path: &'static str,
    pub(super) media_type: &'static str,
    pub(super) bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// A list of files, each with its path and media type.
macro_rules! assets {
    ($($path:literal: $media_type:ident = $file:literal;)*) => {
        /// All of them.
        pub(super) const ASSETS: &[Asset] = &[$(
            Asset { path: $path, media_type: $media_type, bytes: include_bytes!(concat!("assets/", $file)) },
        )*];
    };
}

assets! {
    "/": HTML = "index.html";
    "/assets/agent.js": SCRIPT = "agent.js";
    "/assets/alarms.js": SCRIPT = "alarms.js";
    "/assets/api.js": SCRIPT = "api.js";
    "/assets/app.js": SCRIPT = "app.js";
    "/assets/days.js": SCRIPT = "days.js";
    "/assets/dialogs.js": SCRIPT = "dialogs.js";
    "/assets/doings.js": SCRIPT = "doings.js";
    "/assets/dom.js": SCRIPT = "dom.js";
    "/assets/filters.js": SCRIPT = "filters.js";
    "/assets/format.js": SCRIPT = "format.js";
    "/assets/grid.js": SCRIPT = "grid.js";
    "/assets/icon-alarm.svg": IMAGE = "icon-alarm.svg";
    "/assets/icon.svg": IMAGE = "icon.svg";
    "/assets/stream.js": SCRIPT = "stream.js";
    "/assets/style.css": STYLE = "style.css";
    "/assets/tabs.js": SCRIPT = "tabs.js";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The most bytes of all files together: they are in the program, and a browser loads them with each visit.
    const MAX_LEN: usize = 128 << 10;

    fn text(asset: &Asset) -> &'static str {
        std::str::from_utf8(asset.bytes).unwrap()
    }

    #[test]
    fn every_file_of_the_directory_is_served_and_together_they_are_small() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/services/page/assets");
        let files: BTreeSet<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| match entry.unwrap().file_name().into_string().unwrap().as_str() {
                "index.html" => "/".to_owned(),
                name => format!("/assets/{name}"),
            })
            .collect();
        let served: BTreeSet<_> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        assert_eq!(served, files);
        let length: usize = ASSETS.iter().map(|asset| asset.bytes.len()).sum();
        assert!(length <= MAX_LEN, "{length} bytes");
    }

    #[test]
    fn whatever_a_file_loads_is_served_and_no_file_names_another_origin() {
        let served: BTreeSet<_> = ASSETS.iter().map(|asset| asset.path).collect();
        for asset in ASSETS {
            let text = text(asset);
            let mut loaded = Vec::new();
            for (start, end) in [(" from './", '\''), ("href=\"assets/", '"'), ("src=\"assets/", '"')] {
                loaded.extend(text.split(start).skip(1).filter_map(|rest| rest.split(end).next()));
            }
            for name in loaded {
                assert!(served.contains(format!("/assets/{name}").as_str()), "{}: {name}", asset.path);
            }
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("://"), "{}", asset.path);
        }
    }

    #[test]
    fn the_page_loads_each_script_at_once_and_not_one_after_the_other() {
        let page = text(&ASSETS[0]);
        for asset in
            ASSETS.iter().filter(|asset| asset.media_type == SCRIPT && asset.path != "/assets/app.js")
        {
            let link = format!("<link rel=\"modulepreload\" href=\"{}\">", &asset.path[1..]);
            assert!(page.contains(&link), "{}", asset.path);
        }
    }

    #[test]
    fn no_script_parses_markup_or_text_as_a_program() {
        const PARSING: &[&str] = &[
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
            "new Function",
        ];
        for asset in ASSETS.iter().filter(|asset| asset.media_type == SCRIPT) {
            for word in PARSING {
                assert!(!text(asset).contains(word), "{}: {word}", asset.path);
            }
        }
    }
}
