//! `imgtool`: images of layers to bundles. No verb reaches this room; what it leaves for them is `overlay.json`.
//!
//! A source ([`archive`]) holds images ([`layout`], [`manifest`], [`platform`]); [`import`] applies their layers
//! ([`layer`], [`erofs`]) into the [`store`] ([`locks`]) and settles what layers leave to those below them ([`fixup`], [`view`], [`merged`]);
//! [`bundle`] stacks them ([`stack`]) by the means that fit ([`driver`]: [`overlay`] with [`upper`], [`fuse`],
//! [`copy`]) and writes config.json ([`user`]); [`change`] makes images of images, [`tags`] and [`names`] name them, [`diff`] compares them;
//! [`collect`] removes what no record and no mount ([`mounts`]) keeps ([`sweep`]), [`inspect`], [`docker`] and [`info`] show, in the
//! forms of [`output`], and [`made`] what was made. Images come from and go
//! to registries too ([`registry`]); [`progress`] tells how far that is. The store at rest ([`rest`]): [`export`] takes
//! images out of it, [`verify`] and [`fsck`] look whether it is whole ([`found`]), [`df`] says what it takes, [`convert`] changes the form of layers.

pub mod archive;
pub mod blobs;
pub mod bundle;
pub mod change;
pub mod cli;
pub mod collect;
pub mod convert;
pub mod copy;
pub mod df;
pub mod diff;
pub mod digest;
pub mod docker;
pub mod driver;
pub mod erofs;
pub mod export;
pub mod fixup;
pub mod found;
pub mod fsck;
pub mod fuse;
pub mod help;
pub mod import;
pub mod info;
pub mod inspect;
pub mod layer;
pub mod layout;
pub mod limits;
pub mod locks;
pub mod made;
pub mod manifest;
pub mod merged;
pub mod mounts;
pub mod names;
pub mod output;
pub mod overlay;
pub mod platform;
pub mod progress;
pub mod registry;
pub mod rest;
pub mod rights;
pub mod source;
pub mod stack;
pub mod store;
pub mod sweep;
pub mod tags;
pub mod tree;
pub mod upper;
pub mod user;
pub mod verify;
pub mod view;
