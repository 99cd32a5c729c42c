//! The page at `/`: what the API says, for people. The files that browsers load are part of the program; they hold nothing
//! secret, and the page asks the API for everything else.

mod assets;
mod routes;

pub(crate) use self::routes::routes;
