//! `varta-server top`: the agents of a running server on a terminal, live.

mod command;
mod feed;
mod model;
mod rows;
mod screen;
mod view;

pub use self::command::{TopArgs, TopTask};
