//! cgroups: created, joined, limited, frozen, removed.
