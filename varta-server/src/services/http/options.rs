/// The address for metrics that nobody has to give.
pub(crate) const DEFAULT_METRICS_ADDR: &str = "127.0.0.1:9843";
