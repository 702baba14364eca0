package main

import "errors"

type benchCmd struct{}

func (*benchCmd) Run(*env) error { return errors.New("not yet") }
