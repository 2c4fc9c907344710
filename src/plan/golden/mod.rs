//! Documents that real clients wrote, and the plan of each, in words.
//!
//! `ORLOP_GOLDEN=write cargo test --lib golden` writes the plans anew; read the difference before it is committed.

mod tests;
