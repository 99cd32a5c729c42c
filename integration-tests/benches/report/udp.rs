//! Beats over UDP in plain sight, beside a bare loop of `recvmmsg` with the senders' addresses and the same queue.

use crate::Fallible;
use crate::flow::{self, Bare, Manner, Watched};
use crate::load::{Kind, Load};
use crate::sys::Waits;
use crate::table::{Reach, Row};

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let mut server = Watched::start(&[])?;
    let [mut in_receive, mut in_epoll] = [Bare::start(Waits::InReceive)?, Bare::start(Waits::InEpoll)?];
    let one = Load::of(Kind::Plain);
    let many = Load { agents: 1_000, ..one };
    let runs = [(0, one), (1, one), (2, one), (2, many)];
    let reach = Reach { text: "≥ 0.97", holds: |compared| compared.ratio >= 0.97 };
    let mut rows = Vec::new();
    for manner in Manner::ALL {
        let flows = flow::take_turns(&mut [&mut in_receive, &mut in_epoll, &mut server], &runs, manner)?;
        let [in_receive, in_epoll, one, many] = &flows[..] else { return Err("a run is missing".into()) };
        let bare = [(Waits::InReceive.title(), &in_receive[..]), (Waits::InEpoll.title(), &in_epoll[..])];
        for (agents, ours) in [("one agent", one), ("1,000 agents", many)] {
            rows.extend(flow::rows(("UDP", agents), manner, ours, &bare, reach)?);
        }
    }
    Ok(rows)
}
