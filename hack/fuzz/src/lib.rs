//! What the fuzz targets do with bytes, each by its `run`, which panics where something is wrong. `hack/fuzz/run` starts
//! them; the integration program `image_fuzz` replays `seeds` by them.

pub mod document;
pub mod facts;
pub mod header;
pub mod layer;
pub mod place;
pub mod script;
pub mod whiteout;
