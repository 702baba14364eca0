// Package archtest tests the structure of the source tree: which package may import which, where outside
// libraries may be used, what files there are, and how large things have become. house_test.go is the table
// to read and to extend. A package that is not in it fails the test, so every new package gets a sentence
// that says what it knows.
package archtest
