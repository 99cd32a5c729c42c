//! The dashboards of `deploy/grafana`: each expression of theirs has data, of a server with an agent in alarm.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use varta_integration_tests::{Options, Server, metric, wait_until};

const NAMES: [&str; 3] = ["agent", "overview", "server"];
/// What Grafana puts in the place of variables.
const VARIABLES: [(&str, &str); 3] =
    [("$__rate_interval", "10s"), ("$instance", ".*"), ("$agent", "billing")];

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../deploy/grafana/{name}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Every text under this key.
fn collect<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|field| collect(field, key, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, key, found)),
        _ => {}
    }
}

fn texts<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    collect(value, key, &mut found);
    found
}

#[test]
fn every_expression_of_every_dashboard_has_data() {
    let options = Options::from(["--stall-after", "1h", "--recovery-exec", "/bin/true"]).udp("127.0.0.1:0");
    let server = Server::start(options);
    let mut worker = server.start_agent(&["--name", "billing"]);
    worker.ask("status critical");
    server.expect(metric("varta_agent_alarm").with("agent", "billing").is(1.0));
    let Some(prometheus) = crate::prometheus(server.address(), "1s") else { return };
    for name in NAMES {
        let board = read(name);
        let expressions = texts(&board, "expr");
        assert!(expressions.len() > 8, "{name}: {}", expressions.len());
        for expression in expressions {
            let asked =
                VARIABLES.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
            assert!(!asked.contains('$'), "{asked}");
            wait_until(&format!("{name}: {asked} has data"), || prometheus.count(&asked) > 0);
        }
    }
    drop(worker);
}

#[test]
fn dashboards_have_names_of_their_own_and_ask_the_data_source_that_is_chosen() {
    let boards = NAMES.map(read);
    let of = |key: &str| {
        boards.iter().map(|board| board[key].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!((of("uid").len(), of("title").len()), (NAMES.len(), NAMES.len()));
    for board in &boards {
        let sources = board["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
        for panel in sources {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
            assert!(!panel["title"].as_str().unwrap().is_empty());
        }
        let places: BTreeSet<_> =
            board["panels"].as_array().unwrap().iter().map(|panel| panel["gridPos"].to_string()).collect();
        assert_eq!(places.len(), board["panels"].as_array().unwrap().len());
    }
}
