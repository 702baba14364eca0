package main

import "errors"

type journalCmd struct{}

func (*journalCmd) Run(*env) error { return errors.New("not yet") }
