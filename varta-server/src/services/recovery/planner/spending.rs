//! What actions take from the budgets.

use std::sync::Arc;

use crate::base::rate_limit::Usage;
use crate::base::time::MonoTime;
use crate::services::recovery::budget::Budget;
use crate::services::recovery::job::Refusal;
use crate::services::recovery::planner::{Planner, TRY_AGAIN};

impl Planner {
    /// Takes one token from both budgets, or returns which is spent, and until when.
    pub(super) fn spend(
        &mut self,
        name: &Arc<str>,
        of_group: Budget,
        now: MonoTime,
    ) -> Result<(), (Refusal, MonoTime)> {
        let (group, budget) = self.groups.entry(Arc::clone(name)).or_insert((Usage::default(), of_group));
        *budget = of_group;
        let (of_group, of_all) = (of_group.limit(), self.budget.limit());
        let (group_at, all_at) = (of_group.next_at(*group), of_all.next_at(self.spent));
        // Running jobs may return their tokens.
        let may_come_back = self.jobs.values().any(|doing| doing.group.is_some());
        let until = |at: MonoTime| if may_come_back { now + TRY_AGAIN } else { at };
        if group_at > now {
            return Err((Refusal::GroupBudget, until(group_at)));
        }
        if all_at > now {
            return Err((Refusal::Budget, until(all_at)));
        }
        of_group.take(group, now);
        of_all.take(&mut self.spent, now);
        Ok(())
    }

    /// Returns the tokens of an action that was not carried out.
    pub(super) fn unspend(&mut self, name: &Arc<str>) {
        self.budget.limit().give_back(&mut self.spent);
        if let Some((group, budget)) = self.groups.get_mut(name) {
            budget.limit().give_back(group);
        }
    }
}
