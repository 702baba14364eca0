// Package bank is a service of accounts: open, deposit, withdraw, close. Amounts are whole numbers of the smallest
// unit.
package bank

import (
	"math"
	"strconv"

	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

// StatementLines is how many of its last movements an account keeps. It is low, as tens of thousands of accounts
// are in a sandbox's memory.
const StatementLines = 8

// Account is the state.
type Account struct {
	Owner   string `json:"owner"`
	Open    bool   `json:"open"`
	Balance int64  `json:"balance"`
	Moves   []Move `json:"moves"` // the last ones, oldest first
}

// Move is a movement of money.
type Move struct {
	Amount int64 `json:"amount" doc:"negative if it was withdrawn"`
	At     int64 `json:"at" doc:"milliseconds since the Unix epoch"`
}

// Opened says that an account was opened.
type Opened struct {
	Owner string `json:"owner" doc:"who the account belongs to" example:"Alice"`
}

// Deposited says that money came in.
type Deposited struct {
	Amount int64 `json:"amount" doc:"in the smallest unit of the currency" example:"100"`
	At     int64 `json:"at" doc:"milliseconds since the Unix epoch" example:"1767322800000"`
}

// Withdrawn says that money went out.
type Withdrawn struct {
	Amount int64 `json:"amount" doc:"in the smallest unit of the currency" example:"100"`
	At     int64 `json:"at" doc:"milliseconds since the Unix epoch" example:"1767322800000"`
}

// Closed says that an account was closed.
type Closed struct{}

// Apply implements guest.Event.
func (e Opened) Apply(a *Account) { a.Owner, a.Open = e.Owner, true }

// Apply implements guest.Event.
func (e Deposited) Apply(a *Account) { a.move(e.Amount, e.At) }

// Apply implements guest.Event.
func (e Withdrawn) Apply(a *Account) { a.move(-e.Amount, e.At) }

// Apply implements guest.Event.
func (Closed) Apply(a *Account) { a.Open = false }

func (a *Account) move(amount, at int64) {
	a.Balance += amount
	if len(a.Moves) == StatementLines {
		copy(a.Moves, a.Moves[1:])
		a.Moves = a.Moves[:StatementLines-1]
	}
	a.Moves = append(a.Moves, Move{amount, at})
}

// Open asks for a new account.
type Open struct {
	Owner string `json:"owner" doc:"who the account belongs to" example:"Alice"`
}

// Deposit asks to put money in.
type Deposit struct {
	Amount int64 `json:"amount" doc:"in the smallest unit of the currency, above 0" example:"100"`
}

// Withdraw asks to take money out.
type Withdraw struct {
	Amount int64 `json:"amount" doc:"in the smallest unit of the currency, above 0" example:"30"`
}

// Close asks to close an account, which must be empty.
type Close struct{}

// Balance is the reply to the commands, and to the query of the same name.
type Balance struct {
	Balance int64 `json:"balance" doc:"what is in the account now" example:"70"`
}

// Statement is the reply to the query of the same name.
type Statement struct {
	Owner   string `json:"owner" doc:"who the account belongs to"`
	Open    bool   `json:"open" doc:"whether it takes commands"`
	Balance int64  `json:"balance" doc:"what is in the account now"`
	Lines   []Line `json:"lines" doc:"the last movements, oldest first"`
}

// Line is a line of a statement.
type Line struct {
	Move
	Balance int64 `json:"balance" doc:"after it"`
}

// Service is the bank.
var Service = guest.New[Account]("bank").Version("1").Events(
	guest.Named(Opened{}, "opened"),
	guest.Named(Deposited{}, "deposited"),
	guest.Named(Withdrawn{}, "withdrawn"),
	guest.Named(Closed{}, "closed"),
)

func init() {
	guest.Command(Service, "open", open)
	guest.Command(Service, "deposit", deposit)
	guest.Command(Service, "withdraw", withdraw)
	guest.Command(Service, "close", closeAccount)
	guest.Query(Service, "balance", func(v *guest.View[Account], _ struct{}) (Balance, error) {
		return balance(v.State()), nil
	})
	guest.Query(Service, "statement", statement)
}

func balance(a *Account) Balance { return Balance{a.Balance} }

func open(tx *guest.Tx[Account], c Open) (Balance, error) {
	switch a := tx.State(); {
	case a.Open:
		return Balance{}, guest.Reject("already_open", "the account is open")
	case a.Owner != "":
		return Balance{}, guest.Reject("closed", "the account was closed; open another")
	case c.Owner == "":
		return Balance{}, guest.Reject("no_owner", "an account has an owner")
	}
	tx.Emit(Opened{c.Owner})
	return balance(tx.State()), nil
}

// usable rejects amounts that no account can handle, and accounts that are not open.
func usable(a *Account, amount int64) error {
	switch {
	case a.Owner == "":
		return guest.Reject("no_account", "there is no such account; open it first")
	case !a.Open:
		return guest.Reject("closed", "the account was closed")
	case amount <= 0:
		return guest.Reject("bad_amount", "the amount must be more than nothing")
	}
	return nil
}

func deposit(tx *guest.Tx[Account], c Deposit) (Balance, error) {
	a := tx.State()
	if err := usable(a, c.Amount); err != nil {
		return Balance{}, err
	}
	if a.Balance > math.MaxInt64-c.Amount {
		return Balance{}, guest.Reject("bad_amount", "the account cannot hold that much")
	}
	tx.Emit(Deposited{c.Amount, tx.Now().UnixMilli()})
	return balance(a), nil
}

func withdraw(tx *guest.Tx[Account], c Withdraw) (Balance, error) {
	a := tx.State()
	if err := usable(a, c.Amount); err != nil {
		return Balance{}, err
	}
	if c.Amount > a.Balance {
		return Balance{}, guest.Reject("insufficient_funds", "the balance is "+strconv.FormatInt(a.Balance, 10))
	}
	tx.Emit(Withdrawn{c.Amount, tx.Now().UnixMilli()})
	return balance(a), nil
}

func closeAccount(tx *guest.Tx[Account], _ Close) (Balance, error) {
	a := tx.State()
	if err := usable(a, 1); err != nil {
		return Balance{}, err
	}
	if a.Balance != 0 {
		return Balance{},
			guest.Reject("not_empty", "withdraw the balance of "+strconv.FormatInt(a.Balance, 10)+" first")
	}
	tx.Emit(Closed{})
	return balance(a), nil
}

func statement(v *guest.View[Account], _ struct{}) (Statement, error) {
	a := v.State()
	if a.Owner == "" {
		return Statement{}, guest.Reject("no_account", "there is no such account")
	}
	s := Statement{a.Owner, a.Open, a.Balance, make([]Line, len(a.Moves))}
	after := a.Balance
	for i := len(a.Moves) - 1; i >= 0; i-- {
		s.Lines[i] = Line{a.Moves[i], after}
		after -= a.Moves[i].Amount
	}
	return s, nil
}
