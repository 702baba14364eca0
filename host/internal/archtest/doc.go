// Package archtest holds the tests of the house itself: which package may import
// which, where outside libraries may be used, what lies in the tree, and how big
// things have become. house_test.go is the table to read and to extend; a package
// that is not in it fails the test, so that a new one starts with a sentence on
// what it knows.
package archtest
