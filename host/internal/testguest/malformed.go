package testguest

// HugeNames is a module that has only a name section of 100 MB.
func HugeNames() Broken {
	var b Builder
	b.Custom("name", make([]byte, 100<<20))
	return Broken{"a name section of 100 MB", b.Bytes(), []string{"this service's limit is"}}
}

// Malformed returns files that are not well-formed modules, each for another reason.
func Malformed() []Broken {
	file := func(sections ...byte) []byte { return append([]byte("\x00asm\x01\x00\x00\x00"), sections...) }
	return []Broken{
		{"section size overlong", file(1, 0x81, 0x80, 0x80, 0x80, 0x80, 0x00, 0), []string{"offset 9"}},
		{"section size that overflows", file(1, 0xff, 0xff, 0xff, 0xff, 0x7f), []string{"offset 9"}},
		{"count overlong", file(1, 6, 0x81, 0x80, 0x80, 0x80, 0x80, 0x00), []string{"type section"}},
		{"section beyond the file", file(1, 100, 0), []string{"type section"}},
		{"section size without a section", file(1), []string{"offset 9"}},
		{"two type sections", file(1, 1, 0, 1, 1, 0), []string{"type section"}},
		{"sections out of order", file(3, 1, 0, 1, 1, 0), []string{"type section"}},
		{"an unknown section", file(77, 1, 0), []string{"77"}},
		{"bytes left in a section", file(1, 3, 0, 0, 0), []string{"type section"}},
		{"more types than bytes", file(1, 5, 0xff, 0xff, 0xff, 0x7f, 0x60), []string{"type section"}},
		{"more functions than bytes", file(1, 4, 1, 0x60, 0, 0, 3, 4, 0xff, 0xff, 0x03, 0),
			[]string{"function section"}},
		{"more exports than bytes", file(7, 5, 0xff, 0xff, 0x03, 1, 'x'), []string{"export section"}},
		{"a name longer than its section", file(7, 4, 1, 0xff, 0x01, 'x'), []string{"export section"}},
		{"a name that is no UTF-8", file(7, 5, 1, 1, 0xff, 0, 0), []string{"export section"}},
		{"more bodies than functions", file(1, 4, 1, 0x60, 0, 0, 10, 4, 1, 2, 0, 0x0b), []string{"code"}},
		{"fewer bodies than functions", file(1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0), []string{"code"}},
		{"a body longer than its section", file(1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 10, 3, 1, 9, 0),
			[]string{"code section"}},
	}
}
