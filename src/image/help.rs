//! What the help of `imgtool` and its manual pages say beside options: names, forms of answers, exit codes. A test holds
//! the keys named here against those of real answers.

pub const MORE: &str = "\
IMAGE is the name of an image, with or without what is understood in it (the tag latest,
docker.io/library/); a repository with a digest, NAME@DIGEST; or the digest of its manifest or of
its configuration (the id that Docker shows), of which the first four or more digits are enough
where no other image has them.

LAYER is a number, 1 for the lowest, or the digest of the layer's blob, its diffID, or the start of
one.

With --format json an answer is one array or object. Keys are written as in OCI documents; sizes are
numbers of bytes, times are in the form of RFC 3339, and what is not known is null. The help of each
command names its keys.

With --progress json each line on standard error is an object {event, what, digest, bytes, total}:
event is start, progress or done; what is layer, blob, config, commit, append, squash or rootfs;
digest is that of the blob, the layer or the image, null for a rootfs; bytes are done of total,
which is null where nobody knows it. progress has bytesPerSecond and secondsLeft (null) beside
these, about four times a second; done has seconds and result: imported, exists, pushed, mounted,
exported, made, converted, verified, damaged or failed.

Environment: ORLOP_STORE is the directory of the store where --store is not given.
SOURCE_DATE_EPOCH, in seconds, is the time of what is made, and the latest of its files.
REGISTRY_AUTH_FILE and DOCKER_CONFIG say where logins of registries are. SSL_CERT_FILE and
SSL_CERT_DIR have the certificates of authorities.

The exit code is 0, or 1 with the error on standard error. verify and fsck end with 1 too when
damage is left, convert when a layer is kept as it was.";

pub const IMPORT: &str = "\
JSON: [{name, digest, configDigest}]
digest is that of the manifest, configDigest that of the configuration, the id that Docker shows.";

pub const MADE: &str = "\
JSON: {name, digest, configDigest}
digest is that of the manifest, configDigest that of the configuration, the id that Docker shows.";

pub const CHANGED: &str = "\
JSON: {name, digest, configDigest, layersAdded, layersRemoved}
configDigest is that of the configuration, the id that Docker shows. The last two are the diffIDs of
layers that only the new image has, and of those that only the one it was made of has.";

pub const LIST: &str = "\
JSON: [{name, digest, platform, layers, size, created}]
digest is that of the manifest, layers is their number, size is that of the unpacked tar streams.";

pub const INSPECT: &str = "\
JSON, oci: {names, digest, manifest, configDigest, config, history, layers: [{diffID, chainID,
digest, mediaType, size, uncompressedSize, fileBytes, entries, form, compression}]}
manifest, config and history are the documents of the image; of one that is not in the store the
last five of a layer are null. docker: as docker inspect answers, of images in the store.";

pub const RM: &str = "\
JSON: {names, layers, blobs, bytes, bundles, away, gone}
names are those that were removed; layers and blobs are digests of what nothing used, bytes what is
free by it on disk. Of an image that bundles use only the name goes: they keep its layers. away and
gone are as of gc.";

pub const GC: &str = "\
JSON: {names, layers, blobs, bytes, bundles, away, gone}
layers and blobs are digests of what was removed, bytes what is free by it on disk; names and
bundles are empty. away has path and record of each bundle whose file system is not mounted: it
keeps its layers while there is the file of its record. gone are bundles that are not there, and so
keep nothing any more.";

pub const VERIFY: &str = "\
JSON: [{kind, digest, file, images, place, what}]
kind is name, log, image, blob, layer, fixup or bundle; digest is its own, null where it is a file.
The exit code is 1 when there is damage.";

pub const FSCK: &str = "\
JSON: {litter: [{file, removed}], damages: [{kind, digest, file, images, place, what, state, how}]}
As verify; state is found, mended or left, and how says what was done or why not. The exit code is 1
when damage is left, as what a mount or a container stands on is until that ends. Nobody else may use
the store meanwhile.";

pub const CONVERT: &str = "\
JSON: [{diffID, form, result, bundle}]
form is what the layer has now, dir or erofs; result is converted, exists where it had the form, or
kept where a bundle, which is named, uses the layer. The exit code is 1 when one was kept. A layer
is made of its blob, or of its files where --no-blobs has left that out. Nobody else may use the
store meanwhile.";

pub const DF: &str = "\
JSON: {layers, blobs, fixups, partial, reclaimable, images: [{names, digest, size, shared, unique}]}
Each of the first five is {count, inodes, bytes, disk}: bytes are sizes of files, disk is what
blocks take. Of an image size, shared and unique are bytes on disk.";

pub const HISTORY: &str = "\
JSON: [{layer, diffID, created, createdBy, author, comment, size}]
layer is null for a step that made none; size is that of the layer's files, null of an image that is
not in the store.";

pub const TREE: &str = "\
JSON: {layers: [{layer, digest, diffID, size, createdBy, added, replaced, removed, wasted, paths}],
visible, wasted}
size is that of the blob; added and those like it are {names, bytes}, paths has these four for each
directory.";

pub const DIFF: &str = "\
JSON: [{change, path, size}]; with --layers {common, a, b}: [{layer, diffID, changes: [{change,
path, size}]}]
change is A for added, C for changed, D for deleted; size is that of a file that was added or
changed. common has the diffIDs of the layers that both stand on. The exit code is 0 whatever
differs.";

pub const LOG: &str = "\
JSON: [{time, digest, kept}]
digest is null where the name was removed; kept says whether the image is still in the store.";

pub const INFO: &str = "\
JSON: {store, format, fileSystem, reflink, driver, layerForm, images, bundles, layers, erofsLayers}
driver and layerForm are {name, why}; the last four are numbers.";
