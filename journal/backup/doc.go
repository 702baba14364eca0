// Package backup keeps pieces of journals in files: backups, each of which may
// continue the one before, and exported pieces of a log. What is in them are the
// batches as they stand in the log, so that restoring gives the same positions,
// versions, times and hashes again; the index is derived anew.
//
// A file is written from beginning to end, so it can be a stream over a network. Its
// last record is a manifest that says what the whole holds; without it a file is
// not finished, and nothing takes it for complete.
package backup
