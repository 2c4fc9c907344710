//! `imgtool`: layered images to bundles and back.
