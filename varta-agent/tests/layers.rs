//! How the files of `src` are arranged; the checks are those of varta-proto.

#[path = "../../varta-proto/tests/layers.rs"]
mod layers;
