// Package agree holds test/verify2 against journals that the product's own code
// wrote. It lies beside verify2 because that one shares no code with the product,
// not even in its tests.
package agree
