// Package readmetest executes the README: each block of shell commands in it, in
// order, in one shell, in a copy of the tree with an empty home directory. What
// the README shows as output must appear. So nobody can break the first five
// minutes of a newcomer without a test failing.
//
// Blocks are marked in the README's own fences:
//
//	```sh              run, must succeed
//	```sh background   run beside what follows; goes on once it has printed the
//	                   output that the next block shows, and is interrupted at the
//	                   end or when the README says "kill"
//	```sh check        `make test` and the like: would run this very test again, so
//	                   here everything is compiled and no test is run
//	```text            output of the block above; "…" stands for anything
package readmetest
