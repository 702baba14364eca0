//go:build race

package badgerlog

// underRace is true in a program that looks for data races. RunValueLogGC of Badger 4.9.6 reads the version of the
// latest write while a write may be changing it. Nothing depends on what it reads: the version bounds what merges
// may drop meanwhile, and they drop nothing. The detector cannot know, so under it writes wait for a collection.
const underRace = true
