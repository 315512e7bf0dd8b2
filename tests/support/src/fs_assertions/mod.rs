//! What programs expect of files: assertions that any mount can be put through.
//!
//! Each takes two folders: `plain`, ordinary files as they should be, and `mounted`, a version's
//! folder in a mount with the same files. They panic with the name of what differs, change
//! nothing, and may run in any order and side by side.

mod attributes;
mod maps;
mod own;
mod reads;
mod refusals;
mod tree;
mod walk;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

/// One assertion.
pub type Assertion = fn(plain: &Path, mounted: &Path);

/// All of them, by name.
pub const ALL: &[(&str, Assertion)] = &[
    ("listing_is_equal", tree::listing_is_equal),
    (
        "attributes_are_equal_and_copies_can_be_deleted",
        tree::attributes_are_equal_and_copies_can_be_deleted,
    ),
    ("inodes_are_stable_and_distinct", tree::inodes_are_stable_and_distinct),
    ("list_and_stat_agree", tree::list_and_stat_agree),
    ("a_tiny_buffer_lists_everything_once", tree::a_tiny_buffer_lists_everything_once),
    ("rewinding_a_folder_starts_again", tree::rewinding_a_folder_starts_again),
    ("missing_names_are_missing", tree::missing_names_are_missing),
    ("files_are_no_folders_and_folders_no_files", tree::files_are_no_folders_and_folders_no_files),
    ("dot_dot_leads_back", tree::dot_dot_leads_back),
    ("every_byte_is_equal", reads::every_byte_is_equal),
    ("odd_offsets_and_lengths", reads::odd_offsets_and_lengths),
    ("reads_end_at_the_end", reads::reads_end_at_the_end),
    ("seeking_works_from_all_sides", reads::seeking_works_from_all_sides),
    ("duplicated_descriptors_share_their_offset", reads::duplicated_descriptors_share_their_offset),
    ("sixteen_threads_at_random", reads::sixteen_threads_at_random),
    ("many_opens_at_once", reads::many_opens_at_once),
    ("direct_reads", reads::direct_reads),
    ("sendfile_and_copy", reads::sendfile_and_copy),
    ("advice_is_taken", reads::advice_is_taken),
    ("maps_are_equal", maps::maps_are_equal),
    ("a_map_outlives_its_descriptor", maps::a_map_outlives_its_descriptor),
    ("nothing_can_be_opened_for_writing", refusals::nothing_can_be_opened_for_writing),
    ("nothing_can_be_made", refusals::nothing_can_be_made),
    ("nothing_can_be_moved_or_removed", refusals::nothing_can_be_moved_or_removed),
    ("nothing_can_be_changed", refusals::nothing_can_be_changed),
    ("attributes_can_be_listed_and_read", attributes::attributes_can_be_listed_and_read),
    ("attributes_tell_the_truth", attributes::attributes_tell_the_truth),
    ("attributes_mind_the_size_of_the_buffer", attributes::attributes_mind_the_size_of_the_buffer),
    ("statfs_makes_sense", attributes::statfs_makes_sense),
    ("the_manifest_opens_but_is_not_listed", own::the_manifest_opens_but_is_not_listed),
];

/// Runs all; the first that fails is named.
pub fn assert_same_tree(plain: &Path, mounted: &Path) {
    for (name, assertion) in ALL {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| assertion(plain, mounted))) {
            eprintln!("assertion {name} failed for {}", mounted.display());
            resume_unwind(panic);
        }
    }
}
