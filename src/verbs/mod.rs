//! One file per verb: load, plan, act, record.
