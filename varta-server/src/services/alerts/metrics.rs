//! The metrics of alerts.

use metrics::{Counter, Gauge};

use crate::engine::metrics::SINK_DROPPED;
use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    ALERTS_FIRING = "varta_alerts_firing", "Alerts that fire (--alertmanager, --webhook, --mail-relay).";
    NOTIFICATIONS = "varta_notifications_total",
        "Requests to Alertmanagers and to the webhook, and mails, by what became of them; ends of alerts and notices given up.";
    CLOCK_SKEW = "varta_alertmanager_clock_skew_total",
        "Answers of Alertmanagers whose Date and this host's clock differed by more than two seconds.";
}

/// The value of the metric label `sink`.
pub(super) const SINK: &str = "alerts";

/// Counts of requests to one kind of destination, by outcome.
#[derive(Clone)]
pub(super) struct Outcomes {
    pub(super) sent: Counter,
    pub(super) retried: Counter,
    pub(super) given_up: Counter,
    pub(super) refused: Counter,
    pub(super) acknowledged: Counter,
}

impl Outcomes {
    fn new(registry: &Registry, destination: &str) -> Self {
        let counter =
            |outcome| registry.counter(NOTIFICATIONS, &[("destination", destination), ("outcome", outcome)]);
        Outcomes {
            sent: counter("sent"),
            retried: counter("retried"),
            given_up: counter("given_up"),
            refused: counter("refused"),
            acknowledged: counter("acknowledged"),
        }
    }
}

/// All metrics of alerts, which exist from the start also where no receiver is configured.
#[derive(Clone)]
pub(crate) struct AlertMetrics {
    pub(super) firing: Gauge,
    pub(super) alertmanager: Outcomes,
    pub(super) clock_skew: Counter,
    pub(super) webhook: Outcomes,
    pub(super) mail: Outcomes,
}

impl AlertMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let _dropped = registry.counter(SINK_DROPPED, &[("sink", SINK)]);
        AlertMetrics {
            firing: registry.gauge(ALERTS_FIRING, &[]),
            alertmanager: Outcomes::new(registry, "alertmanager"),
            clock_skew: registry.counter(CLOCK_SKEW, &[]),
            webhook: Outcomes::new(registry, "webhook"),
            mail: Outcomes::new(registry, "mail"),
        }
    }
}
