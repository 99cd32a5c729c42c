//! Feeds a hardware watchdog, so that a host whose server hangs or is gone is reset.

use std::time::Duration;

use crate::base::error::Error;
use crate::services::context::Context;
use crate::services::heartbeat::metrics::{Change, Outcomes};
use crate::services::heartbeat::options::DeviceOptions;
use crate::services::heartbeat::turns::Turns;
use crate::services::heartbeat::watchdog_device::WatchdogDevice;

/// How often the device is fed within its time: two may be late.
const PER_TIMEOUT: u32 = 3;
/// The shortest time of a device. While the server stops in order the device is not fed for up to five seconds.
pub(super) const MIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The device, armed.
#[derive(Debug)]
pub(super) struct DeviceTarget(WatchdogDevice);

impl DeviceTarget {
    /// Opens the device, and logs it.
    ///
    /// # Errors
    ///
    /// It is no watchdog, is in use, does not take the time, or its time is too short.
    pub(super) fn open(options: &DeviceOptions) -> Result<Self, Error> {
        let refused = |fault| Error::Option { option: "--hw-watchdog", fault };
        let device = WatchdogDevice::open(&options.path, options.timeout).map_err(refused)?;
        let timeout = device.timeout();
        if timeout < MIN_TIMEOUT {
            let fault = format!(
                "{device}: resets this host after {timeout:?} already; give --hw-watchdog-timeout {MIN_TIMEOUT:?}"
            );
            return Err(refused(fault));
        }
        tracing::info!(
            target: "varta::heartbeat",
            "{device} resets this host when the tracker completes no turn for {timeout:?}"
        );
        if !device.can_disarm() {
            tracing::warn!(
                target: "varta::heartbeat",
                "{device} cannot be disarmed: it resets this host also after an orderly stop, unless a server is started \
                 within {timeout:?}"
            );
        }
        Ok(DeviceTarget(device))
    }

    /// The task: feeds the device after a completed turn of the tracker, and disarms it at the end, unless the
    /// server ends because of an error.
    pub(super) fn run(
        self,
        context: &Context,
        mut outcomes: Outcomes,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let (stop, failure) = (context.stop_last.clone(), context.failure.clone());
        let DeviceTarget(mut device) = self;
        let turns = Turns::new(context.queries.clone(), device.timeout() / PER_TIMEOUT);
        async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = feed(&mut device, turns, &mut outcomes) => {}
            }
            let name = device.to_string();
            if failure.get().is_some() {
                tracing::error!(
                    target: "varta::heartbeat",
                    "{name} stays armed, and resets this host unless a server is started within {:?}",
                    device.timeout()
                );
            } else if let Err(error) = device.disarm() {
                tracing::error!(target: "varta::heartbeat", "{name} stays armed: {error}");
            }
            Ok(())
        }
    }
}

/// Does not end.
async fn feed(device: &mut WatchdogDevice, mut turns: Turns, outcomes: &mut Outcomes) {
    loop {
        turns.next().await;
        let fed = device.feed();
        match outcomes.count(fed.is_ok()) {
            Some(Change::Fails) => tracing::error!(
                target: "varta::heartbeat",
                "{device} cannot be fed: {}; it resets this host after {:?} of that",
                fed.err().map(|error| error.to_string()).unwrap_or_default(),
                device.timeout()
            ),
            Some(Change::WorksAgain) => tracing::info!(target: "varta::heartbeat", "{device} is fed again"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::future::{pending, ready};

    use super::*;
    use crate::engine::query::Query;

    /// The time of the device in which the test feeds it three times.
    const TIMEOUT: Duration = Duration::from_millis(30);

    async fn ended(end: Result<(), Error>) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("device");
        let target = DeviceTarget(WatchdogDevice::for_test(&path, TIMEOUT));
        let (mut context, mut queries) = Context::for_test();
        let outcomes = Outcomes::new(&context.registry, "device");
        let task = target.run(&context, outcomes);
        context.spawn_last("device", task);
        let turns = async {
            for fed in 0..3 {
                let Some(Query::Population(turn)) = queries.recv().await else { panic!("it asks") };
                assert_eq!(fs::read(&path).unwrap(), vec![0; fed], "it is fed after a turn only");
                turn.send([0; 6]).unwrap();
            }
            let Some(Query::Population(hung)) = queries.recv().await else { panic!("it asks") };
            tokio::time::sleep(TIMEOUT).await;
            assert_eq!(fs::read(&path).unwrap(), [0; 3], "the tracker hangs");
            drop(hung);
        };
        tokio::pin!(turns);
        if let Err(error) = end {
            turns.await;
            context.spawn("tracker", ready(Err(error)));
            context.run_until(pending()).await.unwrap_err();
        } else {
            context.run_until(turns).await.unwrap();
        }
        fs::read(&path).unwrap()
    }

    #[tokio::test]
    async fn it_is_fed_after_completed_turns_only_and_disarmed_by_an_orderly_stop_and_not_by_a_failure() {
        assert_eq!(ended(Ok(())).await, b"\0\0\0V");
        let error = Error::TaskEnded { task: "tracker", fault: "it panicked".to_owned() };
        assert_eq!(ended(Err(error)).await, b"\0\0\0");
    }
}
