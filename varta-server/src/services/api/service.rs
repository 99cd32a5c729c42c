//! Starts what follows the changes, and gives what is served by HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use crate::base::clock::{Clock, WallClock, wall_now};
use crate::base::time::WallTime;
use crate::domain::tracker::{Forgotten, Transition};
use crate::services::alarms::Alarms;
use crate::services::api::changes::{Changes, What};
use crate::services::api::directory::Directories;
use crate::services::api::routes::{open_routes, routes};
use crate::services::api::shared::Api;
use crate::services::context::Context;
use crate::services::http::Sites;
use crate::services::maintenance::desk::Desk;
use crate::services::state::HistoryReader;

/// Starts to follow all changes, and gives the paths of the API. `history` is read where there is a state directory.
pub(crate) fn start(
    context: &mut Context,
    alarms: Alarms,
    desk: Desk,
    history: Option<HistoryReader>,
) -> Sites {
    let changes = Changes::new(WallTime::from(wall_now()).as_millis());
    let directories = Directories::new(context.queries.clone(), changes.clone(), context.clock);
    let (transitions, forgotten, lost) = context.subscribe_with_forgotten("api");
    let (follower, lists, clock, stop) =
        (changes.clone(), directories.clone(), context.clock, context.stop.clone());
    context.spawn("changes for readers", async move {
        let follow = follow(&follower, clock, transitions, forgotten, &lost);
        tokio::join!(follow, lists.drop_unused(&stop));
        Ok(())
    });
    let (host, stop) = (Arc::clone(&context.host), context.stop.clone());
    let api = Api::new(changes, directories, alarms, desk, history, host, stop);
    Sites { guarded: routes(Arc::new(api)), open: open_routes() }
}

/// Follows the changes until the tracker has ended.
async fn follow(
    changes: &Changes,
    clock: Clock,
    mut transitions: mpsc::Receiver<Transition>,
    mut forgotten: mpsc::Receiver<Forgotten>,
    lost: &AtomicBool,
) {
    loop {
        tokio::select! {
            biased;
            transition = transitions.recv() => match transition {
                Some(transition) => {
                    let at = WallClock::read(clock).at(transition.at);
                    changes.add(What::Verdict(transition.into(), at));
                }
                None => return,
            },
            Some(Forgotten { agent, .. }) = forgotten.recv() => changes.add(What::Forgotten(agent)),
        }
        if lost.swap(false, Ordering::Relaxed) {
            changes.add(What::Lost);
        }
    }
}
