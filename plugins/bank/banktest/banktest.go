// Package banktest is the test of package bank. It runs natively or against the compiled module.
package banktest

import (
	"math"
	"testing"
	"time"

	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/plugins/bank"
)

// Run runs the test on the driver.
func Run(t *testing.T, d guesttest.Driver) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ms := at.UnixMilli()
	given := func(t *testing.T, events ...guest.Event[bank.Account]) *guesttest.Case[bank.Account] {
		return guesttest.GivenOn(t, d, bank.Service, "alice", events...).At(at)
	}
	opened := bank.Opened{Owner: "Alice"}
	t.Run("life of an account", func(t *testing.T) {
		given(t).
			When("open", bank.Open{Owner: "Alice"}).Then(opened).Reply(bank.Balance{}).
			When("deposit", bank.Deposit{Amount: 100}).Then(bank.Deposited{Amount: 100,
			At: ms}).Reply(bank.Balance{Balance: 100}).
			When("withdraw", bank.Withdraw{Amount: 30}).Then(bank.Withdrawn{Amount: 30,
			At: ms}).Reply(bank.Balance{Balance: 70}).
			When("close", bank.Close{}).Rejected("not_empty").
			When("withdraw", bank.Withdraw{Amount: 70}).Then(bank.Withdrawn{Amount: 70, At: ms}).
			When("close", bank.Close{}).Then(bank.Closed{}).
			When("deposit", bank.Deposit{Amount: 1}).Rejected("closed").
			When("open", bank.Open{Owner: "Alice"}).Rejected("closed")
	})
	t.Run("overdraft", func(t *testing.T) {
		given(t, opened, bank.Deposited{Amount: 5}).
			When("withdraw", bank.Withdraw{Amount: 6}).Rejected("insufficient_funds").
			When("withdraw", bank.Withdraw{Amount: 5}).Reply(bank.Balance{}).
			When("withdraw", bank.Withdraw{Amount: 1}).Rejected("insufficient_funds")
	})
	t.Run("what makes no sense", func(t *testing.T) {
		given(t).
			When("deposit", bank.Deposit{Amount: 1}).Rejected("no_account").
			When("withdraw", bank.Withdraw{Amount: 1}).Rejected("no_account").
			When("close", bank.Close{}).Rejected("no_account").
			When("open", bank.Open{}).Rejected("no_owner").
			When("open", bank.Open{Owner: "A"}).Then(bank.Opened{Owner: "A"}).
			When("open", bank.Open{Owner: "B"}).Rejected("already_open")
		for _, amount := range []int64{0, -1, math.MinInt64} {
			given(t, opened).
				When("deposit", bank.Deposit{Amount: amount}).Rejected("bad_amount").
				When("withdraw", bank.Withdraw{Amount: amount}).Rejected("bad_amount")
		}
	})
	t.Run("more than an account holds", func(t *testing.T) {
		given(t, opened, bank.Deposited{Amount: math.MaxInt64}).
			When("deposit", bank.Deposit{Amount: 1}).Rejected("bad_amount").
			Query("balance", struct{}{}).Reply(bank.Balance{Balance: math.MaxInt64})
	})
	t.Run("bodies of another shape", func(t *testing.T) {
		given(t, opened).
			When("deposit", map[string]string{"amount": "much"}).Rejected("bad_command").
			When("deposit", []int{1}).Rejected("bad_command").
			When("deposit", map[string]float64{"amount": 1.5}).Rejected("bad_command")
	})
	t.Run("statement", func(t *testing.T) {
		c := given(t, opened)
		for i := range int64(bank.StatementLines + 3) {
			c.When("deposit", bank.Deposit{Amount: i + 1}).Then(bank.Deposited{Amount: i + 1, At: ms})
		}
		want := bank.Statement{Owner: "Alice", Open: true, Balance: 66}
		after := int64(6)
		for i := int64(4); i <= 11; i++ {
			after += i
			want.Lines = append(want.Lines, bank.Line{Move: bank.Move{Amount: i, At: ms}, Balance: after})
		}
		c.Query("statement", struct{}{}).Reply(want)
		given(t).Query("statement", struct{}{}).Rejected("no_account")
	})
}
