//! What finds the names that complete what a user types.

use tokio::sync::oneshot;

use crate::domain::AgentPattern;
use crate::engine::query::{Query, SelectedSlice};
use crate::services::maintenance::acks::AlarmList;
use crate::services::maintenance::names::{NameList, NamesOf};
use crate::services::maintenance::requests::PauseService;

impl PauseService {
    /// The names that begin so; `None` when the server stops.
    pub(super) async fn names(&self, of: NamesOf, start: &str) -> Option<Vec<String>> {
        let mut list = NameList::default();
        let mut add = |name: &str| {
            if name.starts_with(start) {
                list.add(name);
            }
        };
        // A start that cannot begin a name fits none.
        let Ok(who) = AgentPattern::parse(&format!("{start}*")) else { return Some(Vec::new()) };
        match of {
            NamesOf::Resume => {
                self.pauses.look(|pauses| pauses.asked().for_each(|pause| add(pause.pattern.as_str())));
            }
            NamesOf::Pause | NamesOf::Watch | NamesOf::Events | NamesOf::Forget => {
                let mut next = Some(0);
                while let Some(from) = next {
                    let (answer, answered) = oneshot::channel();
                    self.queries.send(Query::Selected { who: who.clone(), from, answer }).await.ok()?;
                    let SelectedSlice { agents, next: further } = answered.await.ok()?;
                    let fit = agents.iter().filter(|(_, lives)| of != NamesOf::Forget || !lives);
                    fit.for_each(|(agent, _)| add(&agent.name));
                    next = further;
                }
            }
            NamesOf::Acknowledge | NamesOf::TakeBack => {
                let AlarmList { acknowledged, open } = self.acks.list(&who).await?;
                let agents = if of == NamesOf::TakeBack { acknowledged } else { open };
                agents.iter().for_each(|agent| add(&agent.name));
            }
        }
        Some(list.into_names())
    }
}
