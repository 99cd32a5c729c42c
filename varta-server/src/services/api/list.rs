//! Lists of agents: which, in which order, and which part.

use std::cmp::Ordering;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use varta_proto::Status;

use crate::base::Glob;
use crate::base::time::millis;
use crate::domain::beat::Transport;
use crate::domain::tracker::{AgentId, Problem, Verdict};
use crate::services::api::directory::{Directory, Listed};
use crate::services::api::parameters::Parameters;
use crate::services::api::row::Story;
use crate::services::api::shared::Api;

/// The most agents of a page.
const MAX_PAGE: usize = 500;
/// The largest offset: the largest number that every reader of JSON has exactly, and of no use above the number of agents.
const MAX_OFFSET: usize = (1 << 53) - 1;
/// Those of a page of which nothing else is said.
const PAGE: usize = 100;
/// The most agents that are put in order without giving way to other tasks.
const AT_ONCE: usize = 2_000;
/// The most words that are searched for, and labels that are asked for.
const MAX_WORDS: usize = 10;
/// The most characters that are searched for.
const MAX_SEARCH: usize = 200;

/// Which agents, in which order.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    /// By [`Verdict::index`].
    states: Option<[bool; Verdict::NAMES.len()]>,
    problem: Option<Problems>,
    name: Option<Glob>,
    /// Each occurs somewhere, in whatever case.
    words: Vec<String>,
    labels: Vec<(String, String)>,
    transports: Option<Vec<usize>>,
    cause: Option<String>,
    sort: Sort,
    is_reversed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problems {
    None,
    /// By their places in [`Problem::ALL`].
    Of([bool; Problem::ALL.len()]),
}

/// By what agents are in order. Equals are by name, pid and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// The worst first.
    Problem,
    Name,
    /// The shortest silence first.
    Silence,
    /// The oldest change first; those of which it is not known come last.
    Since,
    Pid,
    Payload,
    Lost,
}

impl Sort {
    const ALL: [(&'static str, Sort); 7] = [
        ("problem", Sort::Problem),
        ("name", Sort::Name),
        ("silence", Sort::Silence),
        ("since", Sort::Since),
        ("pid", Sort::Pid),
        ("payload", Sort::Payload),
        ("lost", Sort::Lost),
    ];
}

/// Which part of a list.
#[derive(Clone, Debug)]
pub(super) struct Page {
    begin: Begin,
    limit: usize,
}

#[derive(Clone, Debug)]
enum Begin {
    Offset(usize),
    After(Box<Key>),
}

/// The place of an agent in an order; a page is continued behind it, whatever has come and gone meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    first: u64,
    agent: AgentId,
}

/// A part of a list.
#[derive(Debug)]
pub(super) struct Found {
    /// Their places in the directory.
    pub(super) agents: Vec<u32>,
    /// How many there are in all.
    pub(super) matched: usize,
    /// The place of the first one.
    pub(super) offset: usize,
    /// Where the next page begins; `None` behind the last one.
    pub(super) next: Option<String>,
}

impl Selection {
    /// What parameters say, and a text that only equal ones have.
    pub(super) fn parse(parameters: &mut Parameters) -> Result<Self, String> {
        let states = parameters.words("state", &Verdict::NAMES)?.map(|chosen| set(&chosen));
        let mut names = vec!["any", "none"];
        names.extend(Problem::ALL.map(Problem::as_str));
        let problem = match parameters.words("problem", &names)?.as_deref() {
            None => None,
            Some([0]) => Some(Problems::Of([true; Problem::ALL.len()])),
            Some([1]) => Some(Problems::None),
            Some(chosen) if chosen.iter().all(|place| *place > 1) => {
                let chosen: Vec<_> = chosen.iter().map(|place| place - 2).collect();
                Some(Problems::Of(set(&chosen)))
            }
            Some(_) => return Err("problem: `any` and `none` go with no other".to_owned()),
        };
        let transports = Transport::ALL.map(Transport::as_str);
        let search = parameters.text("search")?.unwrap_or_default();
        if search.chars().count() > MAX_SEARCH {
            return Err(format!("search: has more than {MAX_SEARCH} characters"));
        }
        let words: Vec<_> = search.split_whitespace().map(str::to_owned).collect();
        let labels: Vec<_> = parameters.all("label");
        if words.len() > MAX_WORDS || labels.len() > MAX_WORDS {
            return Err(format!("search, label: there may be {MAX_WORDS}"));
        }
        let label = |text: String| match text.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!("label: `{}` is not KEY=VALUE", text.escape_debug())),
        };
        let (sort, is_reversed) = match parameters.text("sort")? {
            None => (Sort::Problem, false),
            Some(text) => {
                let (name, is_reversed) = match text.strip_prefix('-') {
                    Some(name) => (name, true),
                    None => (text.as_str(), false),
                };
                let known = Sort::ALL.iter().find(|(known, _)| *known == name);
                let Some((_, sort)) = known else {
                    let known = Sort::ALL.map(|(known, _)| known).join(", ");
                    return Err(format!("sort: `{}` is none of {known}", name.escape_debug()));
                };
                (*sort, is_reversed)
            }
        };
        Ok(Selection {
            states,
            problem,
            name: parameters.pattern("name")?,
            words,
            labels: labels.into_iter().map(label).collect::<Result<_, _>>()?,
            transports: parameters.words("transport", &transports)?,
            cause: parameters.text("cause")?,
            sort,
            is_reversed,
        })
    }

    /// A text that only an equal selection has.
    pub(super) fn key(&self) -> String {
        format!("{self:?}")
    }

    fn selects(&self, listed: &Listed, cause: impl FnOnce() -> Option<&'static str>) -> bool {
        let record = &listed.record;
        let agent = &record.agent;
        let is_of_transport = |places: &Vec<usize>| {
            record.last_beat.is_some() && places.contains(&agent.origin.transport().index())
        };
        self.states.is_none_or(|states| states[record.verdict.index()])
            && self.problem.is_none_or(|problems| match (problems, listed.problem) {
                (Problems::None, None) => true,
                (Problems::Of(chosen), Some(problem)) => chosen[problem as usize],
                _ => false,
            })
            && self.name.as_ref().is_none_or(|name| name.matches(&agent.name))
            && self.transports.as_ref().is_none_or(is_of_transport)
            && self.labels.iter().all(|(key, value)| record.labels.get(key) == Some(value))
            && self.words.iter().all(|word| occurs(word, listed))
            && self.cause.as_deref().is_none_or(|wanted| cause() == Some(wanted))
    }

    /// All that are selected, in order.
    fn order(&self, api: &Api, directory: &Directory) -> Arc<[u32]> {
        let mut found: Vec<(u64, u32)> = (0..)
            .zip(&directory.agents)
            .filter(|(_, listed)| {
                self.selects(listed, || Story::of(api, listed).map(|story| story.change.cause.as_str()))
            })
            .map(|(place, listed)| (self.first(api, directory, listed), place))
            .collect();
        let agent = |place: u32| &directory.agents[place as usize].record.agent;
        found.sort_unstable_by(|(first, left), (second, right)| {
            let order = first.cmp(second).then_with(|| by_name(agent(*left), agent(*right)));
            if self.is_reversed { order.reverse() } else { order }
        });
        found.into_iter().map(|(_, place)| place).collect()
    }

    /// The number by which an agent is in order before all else.
    fn first(&self, api: &Api, directory: &Directory, listed: &Listed) -> u64 {
        let record = &listed.record;
        match self.sort {
            Sort::Problem => severity(listed),
            Sort::Name => 0,
            Sort::Silence => directory.silence(record).map_or(u64::MAX, millis),
            Sort::Since => Story::of(api, listed).map_or(u64::MAX, |story| story.at.as_millis()),
            Sort::Pid => record.agent.shown_pid().unwrap_or(0).into(),
            Sort::Payload => record.last.payload.into(),
            Sort::Lost => record.lost,
        }
    }

    /// The part of the list that is asked for.
    pub(super) async fn find(&self, api: &Arc<Api>, directory: &Arc<Directory>, page: Page) -> Found {
        let name = self.key();
        let order = match directory.order(&name) {
            Some(order) => order,
            None => {
                let order = self.make_order(api, directory).await;
                directory.keep_order(name, Arc::clone(&order));
                order
            }
        };
        let offset = match page.begin {
            Begin::Offset(offset) => offset.min(order.len()),
            Begin::After(key) => order.partition_point(|place| {
                let listed = &directory.agents[*place as usize];
                let first = self.first(api, directory, listed);
                let order = first.cmp(&key.first).then_with(|| by_name(&listed.record.agent, &key.agent));
                let order = if self.is_reversed { order.reverse() } else { order };
                order != Ordering::Greater
            }),
        };
        let agents: Vec<u32> = order[offset..].iter().take(page.limit).copied().collect();
        let has_more = offset + agents.len() < order.len();
        let last = agents.last().filter(|_| has_more).map(|place| &directory.agents[*place as usize]);
        let next = last.map(|listed| Key::of(self.first(api, directory, listed), listed).to_text());
        Found { agents, matched: order.len(), offset, next }
    }

    async fn make_order(&self, api: &Arc<Api>, directory: &Arc<Directory>) -> Arc<[u32]> {
        if directory.agents.len() <= AT_ONCE {
            return self.order(api, directory);
        }
        let (selection, api, directory) = (self.clone(), Arc::clone(api), Arc::clone(directory));
        let work = tokio::task::spawn_blocking(move || selection.order(&api, &directory));
        // It does not panic, and nobody aborts it; the runtime drops it when it ends.
        work.await.unwrap_or_else(|_| Vec::new().into())
    }
}

impl Page {
    /// What parameters say.
    pub(super) fn parse(parameters: &mut Parameters) -> Result<Self, String> {
        let limit = parameters.number("limit", 1..=MAX_PAGE, PAGE)?;
        let offset = parameters.value("offset", "a number")?;
        if offset.is_some_and(|offset| offset > MAX_OFFSET) {
            return Err(format!("offset: is more than {MAX_OFFSET}"));
        }
        let cursor = parameters.text("cursor")?;
        let begin = match (offset, cursor) {
            (Some(_), Some(_)) => return Err("offset: does not go with cursor".to_owned()),
            (offset, None) => Begin::Offset(offset.unwrap_or(0)),
            (None, Some(cursor)) => Begin::After(Box::new(
                Key::parse(&cursor).ok_or_else(|| "cursor: is none that this server has given".to_owned())?,
            )),
        };
        Ok(Page { begin, limit })
    }

    /// A text that only an equal page has.
    pub(super) fn key(&self) -> String {
        format!("{self:?}")
    }
}

impl Key {
    fn of(first: u64, listed: &Listed) -> Self {
        Key { first, agent: listed.record.agent.clone() }
    }

    fn to_text(&self) -> String {
        let bytes = serde_json::to_vec(self).expect("numbers and texts have a form in JSON");
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn parse(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}

/// The order of two agents by name, pid and place.
fn by_name(left: &AgentId, right: &AgentId) -> Ordering {
    let place = |agent: &AgentId| agent.origin.place(&agent.origin.host(""));
    left.name
        .cmp(&right.name)
        .then(left.pid.cmp(&right.pid))
        .then(left.twin.cmp(&right.twin))
        .then_with(|| place(left).cmp(&place(right)))
}

/// The worst have the least.
fn severity(listed: &Listed) -> u64 {
    match (listed.problem, listed.record.verdict) {
        (Some(problem), _) => Problem::ALL.len() as u64 - 1 - problem as u64,
        (None, Verdict::Unknown) => 10,
        (None, Verdict::Up(Status::Degraded)) => 11,
        (None, Verdict::Expected) => 12,
        (None, Verdict::Up(_) | Verdict::Stalled | Verdict::Down) => 13,
        (None, Verdict::Gone) => 14,
    }
}

/// The places as a set.
fn set<const N: usize>(places: &[usize]) -> [bool; N] {
    std::array::from_fn(|place| places.contains(&place))
}

/// Whether a word occurs in what names or describes an agent, in whatever case of ASCII letters.
fn occurs(word: &str, listed: &Listed) -> bool {
    let record = &listed.record;
    let has = |text: &str| {
        text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    };
    has(&record.agent.name)
        || record.unit.as_deref().is_some_and(has)
        || record.labels.iter().any(|(_, value)| has(value))
        || record.agent.shown_pid().is_some_and(|pid| has(itoa::Buffer::new().format(pid)))
        || record.agent.origin.address().is_some_and(|address| has(&address.to_string()))
}
