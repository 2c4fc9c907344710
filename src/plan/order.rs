//! Planned: order.
