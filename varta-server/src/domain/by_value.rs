//! How values of other crates, and labels, are written in a form without names of fields.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A status as its number on the wire.
pub(super) mod status {
    use varta_proto::Status;

    use super::*;

    pub(in crate::domain) fn serialize<S: Serializer>(status: &Status, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(*status as u8)
    }

    pub(in crate::domain) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Status, D::Error> {
        let number = u8::deserialize(from)?;
        Status::from_u8(number).ok_or_else(|| D::Error::custom(format!("{number} is no status")))
    }
}

/// The name that an agent gives itself as text.
pub(super) mod name {
    use varta_proto::control::AgentName;

    use super::*;

    pub(in crate::domain) fn serialize<S: Serializer>(
        name: &Option<AgentName>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        name.as_ref().map(AgentName::as_str).serialize(to)
    }

    pub(in crate::domain) fn deserialize<'d, D: Deserializer<'d>>(
        from: D,
    ) -> Result<Option<AgentName>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| AgentName::parse(&text)).transpose().map_err(D::Error::custom)
    }
}

/// Labels as a list of pairs.
pub(super) mod labels {
    use super::*;
    use crate::domain::labels::Labels;

    pub(in crate::domain) fn serialize<S: Serializer>(labels: &Labels, to: S) -> Result<S::Ok, S::Error> {
        labels.iter().collect::<Vec<_>>().serialize(to)
    }

    pub(in crate::domain) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Labels, D::Error> {
        let pairs = Vec::<(String, String)>::deserialize(from)?;
        Ok(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect())
    }
}
