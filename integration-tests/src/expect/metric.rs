//! A value of a metric that a test waits for.

use std::fmt;

use crate::expect::Expectation;
use crate::scrape::Scrape;
use crate::server::Server;

/// A sample of `/metrics`, of which there is one with the labels that are asked for.
#[must_use]
pub fn metric(name: &str) -> Metric {
    Metric { name: name.to_owned(), labels: Vec::new() }
}

/// Which sample is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    name: String,
    labels: Vec<(String, String)>,
}

impl Metric {
    /// It has this label.
    #[must_use]
    pub fn with(mut self, label: &str, value: impl fmt::Display) -> Self {
        self.labels.push((label.to_owned(), value.to_string()));
        self
    }

    /// Its value is this one.
    #[must_use]
    pub fn is(self, value: f64) -> MetricValue {
        MetricValue { metric: self, bounds: (value, value) }
    }

    /// Its value is this one or greater.
    #[must_use]
    pub fn at_least(self, value: f64) -> MetricValue {
        MetricValue { metric: self, bounds: (value, f64::INFINITY) }
    }
}

/// A value of a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricValue {
    metric: Metric,
    /// The least and the greatest value that it may have.
    bounds: (f64, f64),
}

impl fmt::Display for MetricValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Metric { name, labels } = &self.metric;
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
        let (least, greatest) = self.bounds;
        let relation = if least == greatest { "is" } else { "is at least" };
        write!(f, "{name}{{{}}} {relation} {least}", labels.join(","))
    }
}

impl Expectation for MetricValue {
    type Found = Scrape;

    fn wait(self, server: &Server) -> Result<Scrape, String> {
        let Metric { name, labels } = &self.metric;
        let labels: Vec<_> = labels.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect();
        let (least, greatest) = self.bounds;
        server.wait_for_scrape(&self.to_string(), |scrape| {
            scrape.get(name, &labels).is_some_and(|value| (least..=greatest).contains(&value))
        })
    }
}
