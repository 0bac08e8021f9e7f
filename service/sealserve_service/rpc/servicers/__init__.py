"""The methods of each service: messages in, messages out. A method raises; the interceptor maps what it raises."""
