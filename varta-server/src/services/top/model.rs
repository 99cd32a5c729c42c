//! What `top` shows, and what a key does to it: without a terminal and without a server.

use crate::services::top::rows::{Detail, List, Row};

/// The longest text that can be typed.
const MAX_TYPED: usize = 200;

/// The orders of the list, as the API names them.
pub(super) const SORTS: [(&str, &str); 5] = [
    ("problem", "worst first"),
    ("name", "by name"),
    ("-silence", "longest silence first"),
    ("-since", "last change first"),
    ("-lost", "most lost beats first"),
];

/// What the list is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Place in [`SORTS`].
    pub(super) sort: usize,
    /// Words that must occur.
    pub(super) search: String,
    /// The id of the agent that is followed.
    pub(super) followed: Option<String>,
}

/// What is asked of the server besides the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Pauses agents of a name for a time, which the server checks.
    Pause {
        /// The name.
        name: String,
        /// The time, as it was typed.
        length: String,
    },
    /// Ends the pause of a name.
    Resume {
        /// The name.
        name: String,
    },
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C.
    Interrupt,
}

/// What is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typing {
    /// Nothing: keys are commands.
    Nothing,
    /// The words of the filter.
    Filter,
    /// How long to pause agents of a name.
    Pause { name: String, length: String },
}

/// What has come from the server.
#[derive(Clone, Debug)]
pub(super) enum Update {
    /// The list, and the agent that is followed.
    Fresh { list: Box<List>, detail: Option<Box<Detail>> },
    /// What an act has come to, in words.
    Acted(String),
    /// The server does not answer, and why.
    Lost(String),
}

/// What a key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing but to be shown.
    None,
    /// The list is wanted otherwise.
    Ask,
    /// Something is to be done.
    Act(Act),
    /// The end.
    Quit,
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) wanted: Wanted,
    pub(super) typing: Typing,
    pub(super) list: Option<List>,
    pub(super) detail: Option<Detail>,
    /// The id of the agent under the bar.
    selected: Option<String>,
    /// What the last act has come to.
    pub(super) message: Option<String>,
    /// Why the server is thought to be gone.
    pub(super) lost: Option<String>,
    /// The rows of the list that fit the screen.
    pub(super) page: usize,
}

impl Model {
    /// Nothing has come yet. `search` has the words of the filter to begin with.
    pub(super) fn new(search: String) -> Self {
        Model {
            wanted: Wanted { search, ..Wanted::default() },
            typing: Typing::Nothing,
            list: None,
            detail: None,
            selected: None,
            message: None,
            lost: None,
            page: 1,
        }
    }

    /// The rows.
    pub(super) fn rows(&self) -> &[Row] {
        self.list.as_ref().map(|list| list.agents.as_slice()).unwrap_or_default()
    }

    /// The place of the bar.
    pub(super) fn cursor(&self) -> Option<usize> {
        let selected = self.selected.as_deref()?;
        self.rows().iter().position(|row| row.id == selected)
    }

    /// Takes what has come.
    pub(super) fn update(&mut self, update: Update) {
        match update {
            Update::Fresh { list, detail } => {
                let place = self.cursor();
                self.list = Some(*list);
                self.detail = detail.map(|detail| *detail).filter(|_| self.wanted.followed.is_some());
                self.lost = None;
                // An agent that is not listed any more leaves the bar where it is.
                if self.cursor().is_none() {
                    self.select(place.unwrap_or(0));
                }
            }
            Update::Acted(message) => self.message = Some(message),
            Update::Lost(fault) => self.lost = Some(fault),
        }
    }

    /// Takes a key.
    pub(super) fn key(&mut self, key: Key) -> Effect {
        if key == Key::Interrupt {
            return Effect::Quit;
        }
        match std::mem::replace(&mut self.typing, Typing::Nothing) {
            Typing::Nothing => self.command(key),
            Typing::Filter => self.type_filter(key),
            Typing::Pause { name, length } => self.type_pause(key, name, length),
        }
    }

    fn command(&mut self, key: Key) -> Effect {
        let (place, last) = (self.cursor().unwrap_or(0), self.rows().len().saturating_sub(1));
        self.message = None;
        match key {
            Key::Up | Key::Char('k') => self.select(place.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.select(place + 1),
            Key::PageUp => self.select(place.saturating_sub(self.page)),
            Key::PageDown => self.select(place + self.page),
            Key::Home | Key::Char('g') => self.select(0),
            Key::End | Key::Char('G') => self.select(last),
            Key::Char('/') => self.typing = Typing::Filter,
            Key::Char('s') => {
                self.wanted.sort = (self.wanted.sort + 1) % SORTS.len();
                return Effect::Ask;
            }
            Key::Enter => {
                self.wanted.followed = match self.wanted.followed.take() {
                    Some(_) => None,
                    None => self.selected.clone(),
                };
                self.detail = None;
                return Effect::Ask;
            }
            Key::Char('p') => {
                if let Some(name) = self.selected_name() {
                    self.typing = Typing::Pause { name, length: "1h".to_owned() };
                }
            }
            Key::Char('r') => {
                if let Some(name) = self.selected_name() {
                    return Effect::Act(Act::Resume { name });
                }
            }
            Key::Escape if self.wanted.followed.is_some() => {
                (self.wanted.followed, self.detail) = (None, None);
                return Effect::Ask;
            }
            Key::Escape if !self.wanted.search.is_empty() => {
                self.wanted.search.clear();
                return Effect::Ask;
            }
            Key::Char('q') => return Effect::Quit,
            Key::Char(_) | Key::Escape | Key::Backspace | Key::Interrupt => {}
        }
        Effect::None
    }

    fn type_filter(&mut self, key: Key) -> Effect {
        let search = &mut self.wanted.search;
        match key {
            Key::Char(character) if search.len() < MAX_TYPED => search.push(character),
            Key::Backspace => _ = search.pop(),
            Key::Escape => {
                search.clear();
                return Effect::Ask;
            }
            Key::Enter => return Effect::None,
            _ => {
                self.typing = Typing::Filter;
                return Effect::None;
            }
        }
        self.typing = Typing::Filter;
        Effect::Ask
    }

    fn type_pause(&mut self, key: Key, name: String, mut length: String) -> Effect {
        match key {
            Key::Enter if !length.is_empty() => return Effect::Act(Act::Pause { name, length }),
            Key::Escape => return Effect::None,
            Key::Char(character) if length.len() < MAX_TYPED => length.push(character),
            Key::Backspace => _ = length.pop(),
            _ => {}
        }
        self.typing = Typing::Pause { name, length };
        Effect::None
    }

    fn select(&mut self, place: usize) {
        let last = self.rows().len().saturating_sub(1);
        self.selected = self.rows().get(place.min(last)).map(|row| row.id.clone());
    }

    fn selected_name(&self) -> Option<String> {
        Some(self.rows().get(self.cursor()?)?.name.clone())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A list of agents with these names.
    pub(in crate::services::top) fn list(names: &[&str]) -> List {
        let row = |name: &&str| Row {
            id: format!("{name}[7]@h"),
            name: (*name).to_owned(),
            pid: Some(7),
            state: "up".to_owned(),
            status: "ok".to_owned(),
            silence_ms: Some(100),
            stall_after_ms: 1_000,
            ..Row::default()
        };
        let all = names.len() as u64;
        List { total: all, matched: all, agents: names.iter().map(row).collect(), ..List::default() }
    }

    pub(in crate::services::top) fn model(names: &[&str]) -> Model {
        let mut model = Model::new(String::new());
        model.update(Update::Fresh { list: Box::new(list(names)), detail: None });
        model
    }

    fn typed(model: &mut Model, text: &str) -> Effect {
        text.chars().map(|character| model.key(Key::Char(character))).last().unwrap_or(Effect::None)
    }

    #[test]
    fn the_bar_stays_on_its_agent_and_where_that_goes_it_stays_in_its_place() {
        let mut model = model(&["a", "b", "c"]);
        model.key(Key::Down);
        assert_eq!(model.cursor(), Some(1));
        model.update(Update::Fresh { list: Box::new(list(&["b", "c"])), detail: None });
        assert_eq!(model.cursor(), Some(0));
        model.key(Key::End);
        model.update(Update::Fresh { list: Box::new(list(&["a", "b"])), detail: None });
        assert_eq!(model.cursor(), Some(1));
        model.update(Update::Fresh { list: Box::new(list(&[])), detail: None });
        assert_eq!(model.cursor(), None);
        assert_eq!(model.key(Key::Down), Effect::None);
    }

    #[test]
    fn words_that_are_typed_filter_the_list_until_they_are_taken_back() {
        let mut model = model(&["a"]);
        assert_eq!(typed(&mut model, "/web q"), Effect::Ask);
        assert_eq!(model.wanted.search, "web q");
        assert_eq!(model.key(Key::Backspace), Effect::Ask);
        assert_eq!(model.key(Key::Enter), Effect::None);
        assert_eq!((model.wanted.search.as_str(), &model.typing), ("web ", &Typing::Nothing));
        assert_eq!(model.key(Key::Escape), Effect::Ask);
        assert_eq!(model.wanted.search, "");
    }

    #[test]
    fn an_agent_is_paused_for_a_time_that_can_be_changed_and_resumed() {
        let mut model = model(&["a", "b"]);
        model.key(Key::Down);
        typed(&mut model, "p");
        model.key(Key::Backspace);
        typed(&mut model, "0m");
        let pause = Act::Pause { name: "b".to_owned(), length: "10m".to_owned() };
        assert_eq!(model.key(Key::Enter), Effect::Act(pause));
        assert_eq!(typed(&mut model, "r"), Effect::Act(Act::Resume { name: "b".to_owned() }));
        typed(&mut model, "p");
        assert_eq!((model.key(Key::Escape), &model.typing), (Effect::None, &Typing::Nothing));
    }

    #[test]
    fn one_agent_is_followed_and_then_it_is_not() {
        let mut model = model(&["a"]);
        assert_eq!(model.key(Key::Enter), Effect::Ask);
        assert_eq!(model.wanted.followed.as_deref(), Some("a[7]@h"));
        assert_eq!(model.key(Key::Escape), Effect::Ask);
        assert_eq!(model.wanted.followed, None);
    }

    #[test]
    fn it_ends_by_q_and_by_an_interrupt_whatever_is_typed() {
        let mut model = model(&["a"]);
        assert_eq!(typed(&mut model, "q"), Effect::Quit);
        assert_eq!(typed(&mut model, "/q"), Effect::Ask);
        assert_eq!(model.key(Key::Interrupt), Effect::Quit);
    }

    #[test]
    fn a_server_that_is_lost_is_told_until_it_answers() {
        let mut model = model(&["a"]);
        model.update(Update::Lost("no server".to_owned()));
        assert!(model.lost.is_some() && model.rows().len() == 1);
        model.update(Update::Fresh { list: Box::new(list(&["a"])), detail: None });
        assert!(model.lost.is_none());
    }
}
