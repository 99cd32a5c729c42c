//! Starts what follows the changes, and gives what is served by HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use crate::base::clock::{Clock, WallClock, wall_now};
use crate::base::time::WallTime;
use crate::domain::tracker::{Forgotten, Transition};
use crate::services::api::changes::{Changes, What};
use crate::services::api::directory::Directories;
use crate::services::api::incidents::Incidents;
use crate::services::api::routes::{open_routes, routes};
use crate::services::api::shared::{Api, Sources};
use crate::services::context::Context;
use crate::services::http::Sites;

/// The name of what is left to the next server.
const ESTATE: &str = "incidents";

/// Starts to follow all changes, and gives the paths of the API.
pub(crate) fn start(context: &mut Context, sources: Sources) -> Sites {
    let changes = Changes::new(WallTime::from(wall_now()).as_millis());
    let directories = Directories::new(context.queries.clone(), changes.clone(), context.clock);
    let incidents = Incidents::default();
    let estate = context.estate.clone();
    if let Some(left) = estate.take(ESTATE) {
        incidents.inherit(&left);
    }
    let (transitions, forgotten, lost) = context.subscribe_with_forgotten("api");
    let follower = Follower { changes: changes.clone(), incidents: incidents.clone(), clock: context.clock };
    let (lists, stop) = (directories.clone(), context.stop.clone());
    context.spawn("changes for readers", async move {
        tokio::join!(follower.follow(transitions, forgotten, &lost), lists.drop_unused(&stop));
        if let Some(left) = follower.incidents.leave() {
            estate.leave(ESTATE, left);
        }
        Ok(())
    });
    let (host, stop) = (Arc::clone(&context.host), context.stop.clone());
    let api = Api::new(changes, directories, incidents, sources, host, stop);
    Sites { guarded: routes(Arc::new(api)), open: open_routes() }
}

/// Where the changes go.
struct Follower {
    changes: Changes,
    incidents: Incidents,
    clock: Clock,
}

impl Follower {
    /// Follows the changes until the tracker has ended.
    async fn follow(
        &self,
        mut transitions: mpsc::Receiver<Transition>,
        mut forgotten: mpsc::Receiver<Forgotten>,
        lost: &AtomicBool,
    ) {
        let Follower { changes, incidents, clock } = self;
        loop {
            tokio::select! {
                biased;
                transition = transitions.recv() => match transition {
                    Some(transition) => {
                        let at = WallClock::read(*clock).at(transition.at);
                        // Whoever has the revision of a change finds it in the incidents.
                        incidents.apply(&transition, changes.next_number(), at);
                        changes.add(What::Verdict(transition.into(), at));
                    }
                    None => return,
                },
                Some(Forgotten { agent, .. }) = forgotten.recv() => {
                    incidents.forget(&agent, WallTime::from(wall_now()));
                    changes.add(What::Forgotten(agent));
                }
            }
            if lost.swap(false, Ordering::Relaxed) {
                incidents.miss(changes.next_number());
                changes.add(What::Lost);
            }
        }
    }
}
