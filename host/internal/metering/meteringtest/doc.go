// Package meteringtest proves the rewriter: it runs modules and what became of them
// side by side, on wazero's compiler and interpreter and on a slow interpreter of
// its own that knows nothing but the text of the tariff.
//
// Production code does not import it.
package meteringtest
