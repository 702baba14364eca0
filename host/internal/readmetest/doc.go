// Package readmetest executes the documents for newcomers: it runs each block of shell commands in the README, in the
// READMEs of the SDK and of the program, and in CONTRIBUTING. It runs them in order, in one shell, in a copy of the
// tree with an empty home directory. The output in a document must appear.
//
// Blocks are marked in the documents' own fences:
//
//	```sh              run, must succeed
//	```sh background   run in the background; the next block starts once this one has
//	                   printed the output that the document shows, and it is
//	                   interrupted at the end
//	```sh offline      run without access to module proxies
//	```sh check        `make test` and the like, which would run this very test again:
//	                   everything is compiled, and no test is run
//	```text            output of the block above; "…" matches anything
package readmetest
