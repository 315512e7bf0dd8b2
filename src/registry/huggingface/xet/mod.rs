//! Xet: where the Hub keeps the bytes of large files, in chunks that a file's Xet hash binds.
//!
//! [`Xet`] reads ranges of files and verifies them: it knows which nodes of a file's tree cover a range,
//! or asks for a proof of it (`proofs`); asks which chunks of which xorbs the range consists of (`terms`);
//! reads them (`chunks`, from `xorb_reader`, `xorb_chunk`, `multipart`, `incoming`), and compares what they
//! lead to. The storage service is another host than the Hub (`client`), with a login of its own
//! (`access`). Invariant: a range has ended without an error only if its bytes match the file's Xet hash;
//! the Hub's token never goes to the storage service, nor the service's to where the bytes are.

mod access;
mod chunks;
mod client;
mod incoming;
mod multipart;
mod proofs;
mod reader;
mod terms;
mod xorb_chunk;
mod xorb_reader;

pub use access::FileOf;
pub use reader::Xet;
